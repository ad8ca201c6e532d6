"""Your own images: a folder with `images/` and `masks/`, paired by file name.

    python train.py --config=configs/folder.py --config.data.root=/path/to/folder

For about 30 images on two CPU cores: 256 pixels a side, batches of 4, no LossNet, 13 minutes of CPU time. The shared
batch norms keep their statistics after 60 % of the training, as in the quickstart, because a training of a few hundred
steps is too short for them (`model.freeze_shared_norms_after`).
Masks are 0/255, 0/1, or class indices with `--config.data.classes`. About 20 % of the images are for the test unless
the folder has `train.txt` or `test.txt` (see m2snet_jax/data/datasets/folder.py). For more images and a GPU, use
the published size: `--config.data.size=352 --config.data.sizes='(224, 256, 288, 320, 352)'`.
"""

from ml_collections import ConfigDict

from m2snet_jax.config import load_file


def get_config() -> ConfigDict:
    """Returns the config for a folder of one's own."""
    config = load_file('default', 'get_config')[0]()
    config.data.name = 'folder'
    config.data.size = 256
    config.data.sizes = (224, 256)
    config.batch = 4
    config.epochs = 24
    config.model.freeze_shared_norms_after = 0.6
    config.loss.lossnet = 0.0
    return config
