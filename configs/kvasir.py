"""Polyps in colonoscopy images: one training set (Kvasir-SEG and CVC-ClinicDB), five test sets, PraNet's split.

    python train.py --config=configs/kvasir.py --config.data.root=/path/to/folder

The folder holds `TrainDataset/` and `TestDataset/` (see m2snet_jax/data/datasets/polyp.py for the tree and where to
get it). Variants:
- `kvasir.py` is the released recipe: 50 epochs of 1450 images at 352 pixels, batch 16, for a GPU or a TPU.
- `kvasir.py:paper` follows the text of the paper where it differs from the released program.
- `kvasir.py:small` is the size at which two CPU cores learn something real in a quarter of an hour: 128 pixels, batch
  8, no LossNet. Its scores are not comparable with published ones.
Encoder and LossNet start from ImageNet files, downloaded once (see m2snet_jax/weights/pretrained.py), but for `:small`.
Published by the authors for M²SNet (mean Dice): Kvasir .912, CVC-ClinicDB .922, CVC-ColonDB .758, ETIS .749.
"""

from m2snet_jax.config import load_config


def get_config(variant=None):
    """Returns the released recipe, or that of `variant`: 'paper' or 'small'."""
    if variant not in (None, 'paper', 'small'):
        raise ValueError(f'no variant {variant!r}: there are "paper" and "small"')
    config = load_config('default:paper' if variant == 'paper' else 'default')
    config.unlock()
    config.data.name = 'polyp'
    if variant != 'small':
        config.model.encoder_weights = 'res2net50'
        config.loss.lossnet_weights = 'vgg16'
    else:
        config.data.size = 128
        config.data.sizes = (96, 112, 128)
        config.batch = 8
        config.loss.lossnet = 0.0
    return config
