"""Generated pictures, a small network and a short training: minutes on two CPU cores, without any download.

    python train.py --config=configs/quickstart.py

The recipe has all parts of the released one: M2SNet, LossNet, sizes drawn for each batch, the triangular learning rate.
It is smaller: an encoder with one block a stage, images of 96 pixels, LossNet at 32 pixels, 250 steps. One key differs:
the running statistics of the batch norms that M2SNet's units share are kept after 60 % of the training
(`model.freeze_shared_norms_after`), because a training of a few hundred steps is too short for them.
"""

from ml_collections import ConfigDict

from m2snet_jax.config import load_file


def get_config() -> ConfigDict:
    """Returns the quickstart: random initial weights, a few minutes."""
    config = load_file('default', 'get_config')[0]()
    config.batch = 8
    config.epochs = 10
    config.model.encoder = 'res2net14'
    config.model.freeze_shared_norms_after = 0.6
    config.data.name = 'phantoms'
    config.data.size = 96
    config.data.sizes = (80, 96)
    config.loss.lossnet_size = 32
    config.log.every = 10
    return config
