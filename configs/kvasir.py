"""Polyps in colonoscopy images: one training set (Kvasir-SEG and CVC-ClinicDB), five test sets, PraNet's split.

    python train.py --config=configs/kvasir.py --config.data.root=/path/to/folder

The folder holds `TrainDataset/` and `TestDataset/` (see m2snet_jax/data/datasets/polyp.py for the tree and where to
get it). The released recipe is 50 epochs of 1450 images at 352 pixels, batch 16, for a GPU or a TPU. The variants
`:paper` and `:small` are described in configs/default.py.
Published for M²SNet (`released/Dice`): Kvasir .912, CVC-ClinicDB .922, CVC-ColonDB .758, ETIS .749, CVC-300 .903.
"""

from ml_collections import ConfigDict

from m2snet_jax.config import load_file


def get_config(variant: str | None = None) -> ConfigDict:
    """Returns the released recipe, or that of `variant`: 'paper' or 'small'."""
    config = load_file('default', 'get_config')[0](variant, pretrained=True)
    config.data.name = 'polyp'
    return config
