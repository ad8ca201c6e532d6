"""Generated phantoms, small and short: the whole program in minutes on two CPU cores, without any download.

    python train.py --config=configs/quickstart.py

Everything of the real recipe is on: M2SNet, LossNet, sizes drawn for each batch, the triangular rate. The scale is
small: an encoder with one block a stage, since the sixteen of Res2Net-50 do not learn from random weights in a few
minutes; images of 96 pixels; LossNet at 32 pixels (it costs three passes of a VGG); a few hundred steps. One thing is
added: in so short a training the moving statistics of the batch norms that M2SNet's units share never fit what the
network is trained with, so they are kept as they are after three fifths of it (`model.fix_filters`).
"""

from m2snet_jax.config import load_config


def get_config():
    """Returns the quickstart: random initial weights, a few minutes."""
    config = load_config('default')
    config.unlock()
    config.batch = 8
    config.epochs = 10
    config.model.encoder = 'res2net14'
    config.model.fix_filters = 0.6
    config.data.name = 'phantoms'
    config.data.size = 96
    config.data.sizes = (80, 96)
    config.loss.lossnet_size = 32
    config.log.every = 10
    return config
