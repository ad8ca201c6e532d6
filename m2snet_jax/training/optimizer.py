"""SGD as both papers use it: Nesterov momentum, PyTorch's weight decay, a triangular learning rate."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import optax

STEM = ('conv1', 'bn1')


def triangular(peak: float, epochs: int, steps_per_epoch: int) -> optax.Schedule:
    """Returns the learning rate as a function of the step: constant within an epoch, highest in the middle of the run.

    Epoch e of E has the learning rate (1 − |2(e+1)/(E+1) − 1|) · peak (released program).
    """

    def rate(step):
        epoch = jnp.asarray(step // steps_per_epoch, float)  # float64 where enabled; int32 would give float32
        return (1 - jnp.abs(2 * (epoch + 1) / (epochs + 1) - 1)) * peak

    return rate


def scale_encoder(factor: float, freeze_stem: bool) -> optax.GradientTransformation:
    """Scales the encoder's updates by `factor`, and those of its stem by 0 with `freeze_stem`.

    The paper trains the whole backbone at 0.1 of the learning rate. The released program selects these parameters, and
    a frozen stem, by a name that no parameter has, so it trains everything at the full learning rate.
    """

    def scale(path, update):
        names = [str(getattr(key, 'key', getattr(key, 'name', key))) for key in path]
        if names[0] != 'encoder':
            return update
        return update * (0.0 if freeze_stem and names[1] in STEM else factor)

    return optax.stateless(lambda updates, params: jax.tree_util.tree_map_with_path(scale, updates))


def sgd(
    rate: optax.Schedule,
    *,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    encoder_lr_factor: float = 1.0,
    freeze_stem: bool = False,
) -> optax.GradientTransformation:
    """Returns PyTorch's SGD with Nesterov momentum; the last two arguments are those of `scale_encoder`.

    g += weight_decay · θ for every parameter, batch norms and biases too; v = momentum · v + g from v = 0;
    θ −= rate · (g + momentum · v). The rate is not inside v, which matters because it changes every epoch.
    """
    return optax.chain(
        optax.add_decayed_weights(weight_decay),
        optax.trace(momentum, nesterov=True),
        scale_encoder(encoder_lr_factor, freeze_stem) if encoder_lr_factor != 1 or freeze_stem else optax.identity(),
        optax.scale_by_learning_rate(rate),
    )


PUBLISHED_BATCH = 16  # for which the learning rate of both papers was chosen


def build_optimizer(config: Any, total: int, epoch_steps: int) -> optax.GradientTransformation:
    """Returns the optimizer of a config for a run of `total` steps."""
    peak = config.optimizer.peak_lr
    if config.optimizer.scale_lr_with_batch:
        peak *= config.batch / PUBLISHED_BATCH
    return sgd(
        triangular(peak, math.ceil(total / epoch_steps), epoch_steps),
        momentum=config.optimizer.momentum,
        weight_decay=config.optimizer.weight_decay,
        encoder_lr_factor=config.optimizer.encoder_lr_factor,
        freeze_stem=config.optimizer.freeze_stem,
    )
