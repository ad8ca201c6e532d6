"""Lung infection of COVID-19 in slices of computed tomography.

    python train.py --config=configs/covid19.py --config.data.root=/path/to/folder

The folder holds `train/` and `test/` (see m2snet_jax/data/datasets/covid19.py for the tree and where to get it);
without data.root the published archive is downloaded. The split is by slice: every volume has slices in both splits.
The released recipe is 200 epochs of 894 slices at 352 pixels, batch 16, for a GPU or a TPU: 178,800 images. Divide by
the images/s of the command benchmark to know the time. The variants `:paper` and `:small` (8 epochs) are described in
configs/default.py.
Published by the authors for M²SNet: Dice .795, S .855, MAE .006.
"""

from ml_collections import ConfigDict

from m2snet_jax.config import load_file


def get_config(variant: str | None = None) -> ConfigDict:
    """Returns the released recipe, or that of `variant`: 'paper' or 'small'."""
    config = load_file('default', 'get_config')[0](variant, pretrained=True)
    config.data.name = 'covid19'
    config.epochs = 8 if variant == 'small' else 200
    return config
