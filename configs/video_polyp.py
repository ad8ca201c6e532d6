"""Polyps in colonoscopy videos: clips of CVC-612 and CVC-300, three test sets of other clips.

    python train.py --config=configs/video_polyp.py --config.data.root=/path/to/folder

The folder holds `VPS-TrainSet/` and `VPS-TestSet/` (see m2snet_jax/data/datasets/video_polyp.py for the tree and where
to get it). Without data.root the published archive is downloaded. The released recipe is 50 epochs at 352 pixels, batch
16, for a GPU or a TPU. To know the time, multiply the number of frames by 50 and divide by the images/s of the command
benchmark. The variants `:paper` and `:small` (12 epochs) are described in configs/default.py.
Published by the authors for M²SNet on CVC-300-TV: Dice .876, IoU .805, S .918, MAE .010.
"""

from ml_collections import ConfigDict

from m2snet_jax.config import load_file


def get_config(variant: str | None = None) -> ConfigDict:
    """Returns the released recipe, or that of `variant`: 'paper' or 'small'."""
    config = load_file('default', 'get_config')[0](variant, pretrained=True)
    config.data.name = 'video_polyp'
    config.epochs = 12 if variant == 'small' else 50
    return config
