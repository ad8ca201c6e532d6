"""Batch normalisation with PyTorch's conventions, its gradient in closed form."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from m2snet_jax.models.packing import NOT_PACKED, Packing
from m2snet_jax.models.scopes import scoped

EPSILON = 1e-5
MOMENTUM = 0.1  # PyTorch's: the weight of the batch in the new running statistic
Channels = Float[Array, 'channels']


def at_least_float32(dtype: Dtype) -> jnp.dtype:
    """Returns float64 for float64 and float32 for everything narrower."""
    return jnp.promote_types(dtype, jnp.float32)


def channel_sums(x: Float[Array, '*axes channels'], weights: Float[Array, '*axes #channels'] | None = None) -> Channels:
    """Sums `x`, times `weights`, over all axes but the channels, as a matrix product: more exact than a running sum."""
    if weights is not None and weights.shape[-1] != 1:
        x, weights = x * weights, None
    row = jnp.ones(x.shape[:-1], x.dtype) if weights is None else weights[..., 0]
    axes = tuple(range(x.ndim - 1))  # not reshaped to one axis, which makes a TPU copy the map
    return lax.dot_general(row, x, ((axes, axes), ((), ())), precision='highest')


def _moments(x: Float[Array, '*axes channels'], packing: Packing) -> tuple[Channels, Channels]:
    """Returns mean and biased variance over all axes but the channels."""
    count = packing.count(x)
    mean = packing.total(channel_sums(x)) / count
    centred = x - packing.spread(mean)
    return mean, packing.total(channel_sums(centred, centred)) / count


def _per_device(function, arrays, stats_sharding):
    """Applies a function to each device's images and gathers its results, `[devices, …]`, in one exchange."""
    parts = (array.reshape(stats_sharding.mesh.size, -1, *array.shape[1:]) for array in arrays)
    return lax.with_sharding_constraint(jax.vmap(lambda *part: jnp.stack(function(*part)))(*parts), stats_sharding)


def _total(function, arrays, stats_sharding):
    """Returns the sums of a function over the images of a batch that may be split over devices."""
    return function(*arrays) if stats_sharding is None else _per_device(function, arrays, stats_sharding).sum(0)


def moments_about(
    shift: Channels,
    x: Float[Array, 'batch height width channels'],
    stats_sharding: jax.sharding.NamedSharding | None = None,
    packing: Packing = NOT_PACKED,
) -> tuple[Channels, Channels]:
    """Returns mean and biased variance of a batch, of at least float32, from sums about any `shift`.

    Since the shift is known before `x` is, a TPU computes these sums where it makes `x`. The variance is
    Σ(x − shift)² / n − (mean − shift)², which loses digits where the mean is many standard deviations from the shift.
    """

    def sums(shifted):
        return packing.total(shifted.sum((0, 1, 2))), packing.total((shifted * shifted).sum((0, 1, 2)))

    total, squares = _total(sums, (x - packing.spread(shift),), stats_sharding)
    count = packing.count(x)
    offset = total / count
    return shift + offset, jnp.maximum(squares / count - offset**2, 0)


def _batch_moments(x, shift, stats_sharding, packing):
    """Returns mean and biased variance of a batch that may be split over devices.

    A map that is narrower than its statistics (bfloat16) is read once, by `moments_about` the running mean. While that
    has not settled the variance loses digits, at the first step most, where the shift is 0: an error of about
    2⁻²² mean², or a few times that. Rounding the map to bfloat16 has itself changed the variance by about 2⁻²⁰ mean².
    Any other map is read twice, the second time about its own mean, where nothing cancels.
    """
    wide = x.astype(at_least_float32(x.dtype))
    if x.dtype != wide.dtype:
        return moments_about(shift, wide, stats_sharding, packing)
    moments = functools.partial(_moments, packing=packing)
    if stats_sharding is None:
        return moments(x)
    means, variances = jnp.moveaxis(_per_device(moments, (x,), stats_sharding), 1, 0)
    mean = means.mean(0)
    return mean, (variances + (means - mean) ** 2).mean(0)


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6))
def normalise(
    x: Float[Array, 'batch height width lanes'],
    scale: Channels,
    bias: Channels,
    shift: Channels,
    frozen_stats: tuple[ArrayLike, Channels, Channels] | None = None,
    stats_sharding: jax.sharding.NamedSharding | None = None,
    packing: Packing = NOT_PACKED,
) -> tuple[Float[Array, 'batch height width lanes'], Channels, Channels]:
    """Returns y = (x − mean) / √(var + ε) · scale + bias, and the mean and biased variance of the batch.

    y has the dtype of `x`; everything else is computed in at least float32. Mean and variance have no gradient. A
    single channel of `x` is treated as equal channels. `shift` is an estimate of the mean that is known before `x` is.
    `frozen_stats` is (frozen, mean, var), the statistics to normalise by where `frozen`, a traced bool, is true;
    without it those of the batch are used. `stats_sharding` is that of `BatchNorm`, `packing` that of `x`.
    """
    return _normalise_forward(x, scale, bias, shift, frozen_stats, stats_sharding, packing)[0]


def _normalise_forward(x, scale, bias, shift, frozen_stats, stats_sharding, packing):
    mean, var = _batch_moments(x, shift, stats_sharding, packing)
    batch_rstd = rstd = lax.rsqrt(var + EPSILON)
    mean_offset, frozen = jnp.zeros_like(mean), False
    if frozen_stats is not None:  # selected, not branched over: XLA does not fuse across a branch
        frozen, frozen_mean, frozen_var = frozen_stats
        rstd = jnp.where(frozen, lax.rsqrt(frozen_var + EPSILON), rstd)
        mean_offset = jnp.where(frozen, mean - frozen_mean, 0)
    spread, shared = packing.spread, None
    standardised = (x.astype(at_least_float32(x.dtype)) - spread(mean) + spread(mean_offset)) * spread(rstd)
    if standardised.shape[-1] == 1:  # kept as one channel: a TPU would subtract and multiply in all channels
        shared = standardised = lax.optimization_barrier(standardised)
    y = standardised * spread(scale) + spread(bias)
    return (y.astype(x.dtype), mean, var), (x, shared, mean, batch_rstd, rstd, mean_offset, scale, frozen)


def _normalise_backward(stats_sharding, packing, residuals, cotangents):
    # With x̂ = (x − mean) · rstd, rstd = 1/√(var + ε), over n values a channel:
    #   dbias = Σ dy    dscale = Σ dy · x̂    dx = scale · rstd · (dy − dbias / n − x̂ · dscale / n)
    # The last two terms of dx are the gradients through mean and variance, which frozen statistics do not have.
    # Of the maps this form reads only dy and x, which the convolution before the norm has in memory anyway.
    x, shared, mean, batch_rstd, rstd, mean_offset, scale, frozen = residuals
    wide, spread, n = at_least_float32(x.dtype), packing.spread, packing.count(x)
    dy, centred = cotangents[0].astype(wide), x.astype(wide) - spread(mean)

    def sums(dy, centred):
        return packing.total(channel_sums(dy)), packing.total(channel_sums(dy, centred))

    if shared is None:
        dbias, dy_centred = _total(sums, (dy, centred), stats_sharding)
        dscale = rstd * (dy_centred + mean_offset * dbias)
    else:
        dbias, dscale = _total(sums, (dy, shared), stats_sharding)
    factor = rstd * scale
    through_mean, through_var = (jnp.where(frozen, 0, factor * total) for total in (dbias, dscale))
    if x.shape[-1] == 1:  # one channel for C equal ones: their gradients add up
        dx = jnp.dot(dy, factor[:, None], precision='highest')
        through_mean, through_var = through_mean.sum(-1), through_var.sum(-1)
    else:
        dx = dy * spread(factor)
    dx -= (spread(through_mean) + centred * spread(batch_rstd * through_var)) / n
    return dx.astype(x.dtype), dscale, dbias, None, None


normalise.defvjp(_normalise_forward, _normalise_backward)


class BatchNorm(nnx.Module):
    """Batch normalisation with PyTorch's conventions; the result has the dtype of the input.

    In training it normalises by the biased variance of the batch, and moves the running statistics towards the batch's
    mean and unbiased variance with momentum 0.1. `model.eval()` makes it normalise by the running statistics.
    Statistics are at least float32, whatever the `param_dtype` of scale and bias. An input of one channel is treated as
    equal channels, with one mean and variance.

    Attributes:
        stats_sharding: None, or the sharding of an array that is replicated over a mesh. A training batch is then split
            evenly over the mesh's devices, which exchange their statistics once forward and once backward. Without it
            the compiler makes three reductions, each of which takes twice as long as such an exchange.
    """

    def __init__(self, channels: int, *, param_dtype: Dtype = jnp.float32):
        self.use_running_average = False
        self.stats_sharding: jax.sharding.NamedSharding | None = None
        self.momentum = (1 - MOMENTUM, MOMENTUM)  # weights of the old statistic and of the batch in the new one
        self.scale = nnx.Param(jnp.ones(channels, param_dtype))
        self.bias = nnx.Param(jnp.zeros(channels, param_dtype))
        self.mean = nnx.BatchStat(jnp.zeros(channels, at_least_float32(param_dtype)))
        self.var = nnx.BatchStat(jnp.ones(channels, at_least_float32(param_dtype)))

    @scoped
    def __call__(
        self,
        x: Float[Array, 'batch height width lanes'],
        frozen: ArrayLike | None = None,
        packing: Packing = NOT_PACKED,
    ) -> Float[Array, 'batch height width lanes']:
        """Normalises `x`, whose channels may be packed.

        `frozen`, a bool that may be traced, makes training use and keep the running statistics.
        """
        if self.use_running_average:
            wide, spread = x.astype(at_least_float32(x.dtype)), packing.spread
            factor = spread(self.scale[...] * lax.rsqrt(self.var[...] + EPSILON))
            y = (wide - spread(self.mean[...])) * factor + spread(self.bias[...])
        else:
            frozen_stats = None if frozen is None else (frozen, self.mean[...], self.var[...])
            shift = self.mean[...][: x.shape[-1]]  # one channel for C equal ones
            found: Any = normalise(
                x, self.scale[...], self.bias[...], shift, frozen_stats, self.stats_sharding, packing
            )
            y, mean, var = found
            self._update_statistics(mean, var, packing.count(x), frozen)
        return y.astype(x.dtype)

    def _update_statistics(self, mean, var, count, frozen):
        """Moves the running statistics towards those of one batch of `count` values a channel."""
        old_weight, batch_weight = self.momentum
        unbiased = var * (count / max(count - 1, 1))
        for running, new in ((self.mean, mean), (self.var, unbiased)):
            moved = old_weight * running[...] + batch_weight * new
            # Not `running[...] =`, which makes jax write an error message about each traced array: 4 s for M²SNet.
            running.set_value(moved if frozen is None else jnp.where(frozen, running[...], moved))
