"""SGD as both papers use it, or AdamW; a triangular learning rate, or a cosine with warmup."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import optax

from m2snet_jax.build import STEM
from m2snet_jax.errors import InputError


def triangular(peak: float, epochs: int, steps_per_epoch: int) -> optax.Schedule:
    """Returns the learning rate as a function of the step: constant within an epoch, highest in the middle of the run.

    Epoch e of E has the learning rate (1 − |2(e+1)/(E+1) − 1|) · peak (released program).
    """

    def rate(step):
        epoch = jnp.asarray(step // steps_per_epoch, float)  # float64 where enabled; int32 would give float32
        return (1 - jnp.abs(2 * (epoch + 1) / (epochs + 1) - 1)) * peak

    return rate


def cosine(peak: float, total: int, warmup: int = 0) -> optax.Schedule:
    """Returns the learning rate as a function of the step: half a cosine from `peak` to 0 at step `total`.

    Before it the learning rate rises linearly from 0, for `warmup` steps.
    """
    if not warmup:
        return optax.cosine_decay_schedule(peak, total)
    return optax.warmup_cosine_decay_schedule(0.0, peak, warmup, total)


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
    clip: float | None = None,
) -> optax.GradientTransformation:
    """Returns PyTorch's SGD with Nesterov momentum; `encoder_lr_factor` and `freeze_stem` are those of `scale_encoder`.

    Gradients are first limited to ±`clip`, each element by itself. g += weight_decay · θ for every parameter, batch
    norms and biases too; v = momentum · v + g from v = 0; θ −= rate · (g + momentum · v). The rate is not inside v,
    which matters because it changes every epoch.
    """
    return optax.chain(
        *([] if clip is None else [optax.clip(clip)]),
        optax.add_decayed_weights(weight_decay),
        optax.trace(momentum, nesterov=True),
        scale_encoder(encoder_lr_factor, freeze_stem) if encoder_lr_factor != 1 or freeze_stem else optax.identity(),
        optax.scale_by_learning_rate(rate),
    )


def adamw(
    rate: optax.Schedule,
    *,
    momentum: float = 0.9,
    weight_decay: float = 1e-4,
    encoder_lr_factor: float = 1.0,
    freeze_stem: bool = False,
    clip: float | None = None,
) -> optax.GradientTransformation:
    """Returns PyTorch's AdamW with β₁ = `momentum`, β₂ = 0.999 and ε = 1e-8; the other arguments are those of `sgd`.

    The weight decay is not part of the gradient: θ −= rate · (m̂ / (√v̂ + ε) + weight_decay · θ), for every parameter,
    batch norms and biases too. `encoder_lr_factor` and `freeze_stem` scale all of that update.
    """
    return optax.chain(
        *([] if clip is None else [optax.clip(clip)]),
        optax.scale_by_adam(b1=momentum),
        optax.add_decayed_weights(weight_decay),
        scale_encoder(encoder_lr_factor, freeze_stem) if encoder_lr_factor != 1 or freeze_stem else optax.identity(),
        optax.scale_by_learning_rate(rate),
    )


PUBLISHED_BATCH = 16  # for which the learning rate of both papers was chosen


def build_optimizer(config: Any, total: int, epoch_steps: int) -> optax.GradientTransformation:
    """Returns the optimizer of a config for a run of `total` steps.

    Raises:
        InputError: the warmup is not shorter than the run.
    """
    peak = config.optimizer.peak_lr
    if config.optimizer.scale_lr_with_batch:
        peak *= config.batch / PUBLISHED_BATCH
    if config.optimizer.schedule == 'triangular':
        rate = triangular(peak, math.ceil(total / epoch_steps), epoch_steps)
    else:
        warmup = round(config.optimizer.warmup * epoch_steps)
        if warmup >= total:
            found = f'--config.optimizer.warmup={config.optimizer.warmup:g}'
            raise InputError(f'{found}: {warmup} steps, but the run has {total}; set fewer epochs of warmup')
        rate = cosine(peak, total, warmup)
    return {'sgd': sgd, 'adamw': adamw}[config.optimizer.name](
        rate,
        momentum=config.optimizer.momentum,
        weight_decay=config.optimizer.weight_decay,
        encoder_lr_factor=config.optimizer.encoder_lr_factor,
        freeze_stem=config.optimizer.freeze_stem,
        clip=config.optimizer.clip,
    )
