"""Generated phantoms, small and short: the whole program in minutes on two CPU cores, without any download.

    python train.py --config=configs/quickstart.py

It has all parts of the released recipe: M2SNet, LossNet, sizes drawn for each batch, the triangular learning rate. The
scale is small: an encoder with one block a stage, since the sixteen of Res2Net-50 do not learn from random weights in a
few minutes; images of 96 pixels; LossNet at 32 pixels (it costs three passes of a VGG); a few hundred steps. One key
differs: in so short a training the running statistics of the batch norms that M2SNet's units share do not fit what the
network is trained with, so they are kept after three fifths of it (`model.freeze_shared_norms_after`).
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
