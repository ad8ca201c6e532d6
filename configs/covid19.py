"""Lung infection of COVID-19 in slices of computed tomography.

    python train.py --config=configs/covid19.py --config.data.root=/path/to/folder

The folder holds `train/` and `test/` (see m2snet_jax/data/datasets/covid19.py for the tree and where to get it);
without one, the published download is tried. The split is by slice, with slices of every volume in both halves.
Variants:
- `covid19.py` is the released recipe at 352 pixels, batch 16, for a GPU or a TPU: 200 epochs of 894 slices are 178,800
  images; divide by the images/s of the command benchmark to know the time.
- `covid19.py:paper` follows the text of the paper where it differs from the released program.
- `covid19.py:small` is the size at which two CPU cores learn something real in a quarter of an hour: 128 pixels, batch
  8, no LossNet, 8 epochs. Its scores are not comparable with published ones.
Encoder and LossNet start from ImageNet files, downloaded once (see m2snet_jax/weights/pretrained.py), but for `:small`.
Published by the authors for M²SNet: Dice .795, S .855, MAE .006.
"""

from m2snet_jax.config import load_config


def get_config(variant=None):
    """Returns the released recipe, or that of `variant`: 'paper' or 'small'."""
    if variant not in (None, 'paper', 'small'):
        raise ValueError(f'no variant {variant!r}: there are "paper" and "small"')
    config = load_config('default:paper' if variant == 'paper' else 'default')
    config.unlock()
    config.data.name = 'covid19'
    config.epochs = 200
    if variant != 'small':
        config.model.encoder_weights = 'res2net50'
        config.loss.lossnet_weights = 'vgg16'
    else:
        config.data.size = 128
        config.data.sizes = (96, 112, 128)
        config.batch = 8
        config.loss.lossnet = 0.0
        config.epochs = 8
    return config
