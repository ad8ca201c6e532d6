"""Polyps in colonoscopy videos: clips of CVC-612 and CVC-300, three test sets of clips that were not seen.

    python train.py --config=configs/video_polyp.py --config.data.root=/path/to/folder

The folder holds `VPS-TrainSet/` and `VPS-TestSet/` (see m2snet_jax/data/datasets/video_polyp.py for the tree and where
to get it); without one, the published download is tried. Variants:
- `video_polyp.py` is the released recipe: 50 epochs at 352 pixels, batch 16, for a GPU or a TPU. Multiply the frames
  that the command validate counts by 50 and divide by the images/s of the command benchmark to know the time.
- `video_polyp.py:paper` follows the text of the paper where it differs from the released program.
- `video_polyp.py:small` is the size at which two CPU cores learn something real in a quarter of an hour: 128 pixels,
  batch 8, no LossNet, 12 epochs. Its scores are not comparable with published ones.
Encoder and LossNet start from ImageNet files, downloaded once (see m2snet_jax/weights/pretrained.py), but for `:small`.
Published by the authors for M²SNet on CVC-300-TV: Dice .876, IoU .805, S .918, MAE .010.
"""

from m2snet_jax.config import load_config


def get_config(variant=None):
    """Returns the released recipe, or that of `variant`: 'paper' or 'small'."""
    if variant not in (None, 'paper', 'small'):
        raise ValueError(f'no variant {variant!r}: there are "paper" and "small"')
    config = load_config('default:paper' if variant == 'paper' else 'default')
    config.unlock()
    config.data.name = 'video_polyp'
    config.epochs = 50
    if variant != 'small':
        config.model.encoder_weights = 'res2net50'
        config.loss.lossnet_weights = 'vgg16'
    else:
        config.data.size = 128
        config.data.sizes = (96, 112, 128)
        config.batch = 8
        config.loss.lossnet = 0.0
        config.epochs = 12
    return config
