"""The layers every network here is made of. Images and feature maps are `[B, H, W, C]`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from m2snet_jax.model.convolution import Conv

EPSILON = 1e-5
MOMENTUM = 0.1  # PyTorch's: the share of the batch in the new running statistic


def at_least_float32(dtype):
    """Returns float64 for float64 and float32 for everything narrower."""
    return jnp.promote_types(dtype, jnp.float32)


def channel_sums(x, weights=None):
    """Sums `[…, C]`, times weights `[…, 1 or C]`, over all but the channels.

    As a product of matrices: more accurate than a running sum.
    """
    if weights is not None and weights.shape[-1] != 1:
        x, weights = x * weights, None
    flat = x.reshape(-1, x.shape[-1])
    row = jnp.ones(len(flat), x.dtype) if weights is None else weights.reshape(-1)
    return jnp.dot(row, flat, precision='highest')


def _moments(x):
    """Returns mean and biased variance over all but the channels: `[C]` each."""
    count = x.size // x.shape[-1]
    mean = channel_sums(x) / count
    centred = x - mean
    return mean, channel_sums(centred, centred) / count


def _by_device(function, arrays, across):
    """Returns what a function gives for each device's images, `[D, …]`: sent to every device in one exchange."""
    parts = (array.reshape(across.mesh.size, -1, *array.shape[1:]) for array in arrays)
    return lax.with_sharding_constraint(jax.vmap(lambda *part: jnp.stack(function(*part)))(*parts), across)


def _moments_across(x, across):
    """`_moments` where the batch lies on many devices: each takes its own, which are put together without a loss."""
    if across is None:
        return _moments(x)
    means, variances = jnp.moveaxis(_by_device(_moments, (x,), across), 1, 0)
    mean = means.mean(0)
    return mean, (variances + (means - mean) ** 2).mean(0)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def normalise(x, scale, bias, known=None, across=None):
    """(x − mean) / √(var + ε) · scale + bias by the statistics of the batch, which are also returned (biased variance).

    `known`, (fixed, mean, var), gives the statistics to normalise by where `fixed`, a bool that may be traced, is true.
    `across` is as in `BatchNorm`.
    """
    return _normalise(x, scale, bias, known, across)[0]


def _normalise(x, scale, bias, known, across):
    mean, var = _moments_across(x, across)
    of_batch = inverse = lax.rsqrt(var + EPSILON)
    shift, fixed = jnp.zeros_like(mean), False
    if known is not None:  # selected, not branched over: a branch would be a wall to fusion
        fixed, known_mean, known_var = known
        inverse = jnp.where(fixed, lax.rsqrt(known_var + EPSILON), inverse)
        shift = jnp.where(fixed, mean - known_mean, 0)
    y = (x - mean + shift) * inverse * scale + bias
    return (y, mean, var), (x, mean, of_batch, inverse, shift, scale, fixed)


def _normalise_gradient(across, kept, cotangents):
    """The closed form, with no gradient through the returned statistics: they are only remembered.

    It needs two sums, and of the maps only the input, which the convolution before it has written anyway.
    """
    x, mean, of_batch, inverse, shift, scale, fixed = kept
    gradient, centred, count = cotangents[0], x - mean, x.size // x.shape[-1]

    def sums(gradient, centred):
        return channel_sums(gradient), channel_sums(gradient, centred)

    if across is None:
        to_bias, along = sums(gradient, centred)
    else:
        to_bias, along = _by_device(sums, (gradient, centred), across).sum(0)
    to_scale = inverse * (along + shift * to_bias)
    slope = inverse * scale
    level, tilt = (jnp.where(fixed, 0, slope * total) for total in (to_bias, to_scale))
    if x.shape[-1] == 1:  # one channel stood for all
        to_x = jnp.dot(gradient, slope[:, None], precision='highest')
        level, tilt = level.sum(-1), tilt.sum(-1)
    else:
        to_x = gradient * slope
    return to_x - (level + centred * (of_batch * tilt)) / count, to_scale, to_bias, None


normalise.defvjp(_normalise, _normalise_gradient)


class BatchNorm(nnx.Module):
    """Batch normalisation with PyTorch's conventions: `[B, H, W, C]` → the same, in the same dtype.

    It normalises by the biased batch variance and remembers the unbiased one, with momentum 0.1;
    `model.eval()` makes it use the running statistics. Statistics are taken in at least float32.
    A one-channel input stands for C equal channels: statistics are then taken once.

    `fixed`, a bool that may be traced, makes a norm in training mode use its running statistics and keep them.
    `across`, where it is set, is the sharding of an array that every device of a mesh holds: a batch in training lies
    in equal parts on these devices, and they exchange their statistics once forward and once backward. Left to the
    compiler these would be three reductions, each of which takes twice as long on its way.
    """

    def __init__(self, channels, *, param_dtype=jnp.float32):
        self.use_running_average = False
        self.across = None
        self.momentum = (1 - MOMENTUM, MOMENTUM)  # shares of the old statistic and of the batch in the new one
        self.scale = nnx.Param(jnp.ones(channels, param_dtype))
        self.bias = nnx.Param(jnp.zeros(channels, param_dtype))
        self.mean = nnx.BatchStat(jnp.zeros(channels, at_least_float32(param_dtype)))
        self.var = nnx.BatchStat(jnp.ones(channels, at_least_float32(param_dtype)))

    def __call__(self, x, fixed=None):
        wide = x.astype(at_least_float32(x.dtype))
        if self.use_running_average:
            y = (wide - self.mean[...]) * (self.scale[...] * lax.rsqrt(self.var[...] + EPSILON)) + self.bias[...]
        else:
            known = None if fixed is None else (fixed, self.mean[...], self.var[...])
            y, mean, var = normalise(wide, self.scale[...], self.bias[...], known, self.across)
            self._remember(mean, var, x.size // x.shape[-1], fixed)
        return y.astype(x.dtype)

    def _remember(self, mean, var, count, fixed):
        """Moves the running statistics towards those of one more batch, of `count` pixels a channel."""
        keep, take = self.momentum
        unbiased = var * (count / max(count - 1, 1))
        for running, new in ((self.mean, mean), (self.var, unbiased)):
            moved = keep * running[...] + take * new
            running[...] = moved if fixed is None else jnp.where(fixed, running[...], moved)


class ConvBatchNormRelu(nnx.Module):
    """A 3×3 convolution with bias, batch norm, ReLU: the papers' "conv + BN + ReLU"."""

    def __init__(self, in_channels, out_channels, *, dtype=jnp.float32, param_dtype=jnp.float32, rngs):
        self.conv = Conv(in_channels, out_channels, use_bias=True, dtype=dtype, param_dtype=param_dtype, rngs=rngs)
        self.norm = BatchNorm(out_channels, param_dtype=param_dtype)

    def __call__(self, x):
        return nnx.relu(self.norm(self.conv(x)))


@functools.cache
def _interpolation(source, target):
    """Returns the [target, source] matrix of bilinear interpolation along one axis, float64."""
    position = np.maximum((np.arange(target) + 0.5) * source / target - 0.5, 0)
    low = np.minimum(position.astype(int), source - 1)
    high = np.minimum(low + 1, source - 1)
    share = position - low
    matrix = np.zeros((target, source))
    np.add.at(matrix, (np.arange(target), low), 1 - share)
    np.add.at(matrix, (np.arange(target), high), share)
    return matrix


def resize(x, height, width):
    """Bilinear resize of `[B, H, W, C]` to `[B, height, width, C]`: half-pixel centres, no antialias.

    Equal to PyTorch's `interpolate(mode='bilinear', align_corners=False)`. Two products with fixed
    matrices: exact for odd sizes, free of gathers, and exportable with a symbolic batch.
    """
    for axis, target in ((1, height), (2, width)):
        if x.shape[axis] != target:
            matrix = jnp.asarray(_interpolation(x.shape[axis], target), x.dtype)
            equation = 'oh,bhwc->bowc' if axis == 1 else 'ow,bhwc->bhoc'
            x = jnp.einsum(equation, matrix, x, precision='highest')
    return x


def box_sum(x, size):
    """Sums `[B, H, W, C]` over a size×size window around every pixel, zero outside the image."""
    for axis in (1, 2):
        window, padding = [1] * 4, [(0, 0)] * 4
        window[axis], padding[axis] = size, (size // 2, size // 2)
        x = lax.reduce_window(x, 0.0, lax.add, window, (1, 1, 1, 1), padding)
    return x


def average_pool(x, stride):
    """3×3 average with padding 1, always divided by 9: the fourth group of a Res2Net stage block."""
    padding = ((0, 0), (1, 1), (1, 1), (0, 0))
    return lax.reduce_window(x, 0.0, lax.add, (1, 3, 3, 1), (1, stride, stride, 1), padding) / 9


def average_pool_ceil(x, stride):
    """stride×stride average; a window that sticks out averages its pixels inside the image only."""
    if stride == 1:
        return x
    padding = [(0, 0), *((0, -n % stride) for n in x.shape[1:3]), (0, 0)]
    window = (1, stride, stride, 1)
    inside = lax.reduce_window(np.ones((1, *x.shape[1:3], 1), x.dtype), 0.0, lax.add, window, window, padding)
    return lax.reduce_window(x, 0.0, lax.add, window, window, padding) / inside


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def max_pool(x, size, stride, padding=0):
    """size×size maximum with the given stride and padding; of equal values the first has the gradient."""
    return _max_pool(x, size, stride, padding)


def _max_pool(x, size, stride, padding):
    padding = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, size, size, 1), (1, stride, stride, 1), padding)


def _max_pool_forward(x, *window):
    return lax.platform_dependent(
        x, cpu=lambda x: _max_pool_by_axis(x, *window), default=lambda x: _max_pool(x, *window)
    ), x


def _max_pool_backward(size, stride, padding, x, gradient):
    def by(pool):
        return lambda x, gradient: jax.vjp(lambda x: pool(x, size, stride, padding), x)[1](gradient)

    return lax.platform_dependent(x, gradient, cpu=by(_max_pool_by_axis), default=by(_max_pool))


max_pool.defvjp(_max_pool_forward, _max_pool_backward)


def _max_pool_by_axis(x, size, stride, padding):
    """`max_pool` along rows, then along columns: on a CPU several times faster, with its gradient."""
    x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)), constant_values=-jnp.inf)
    for axis in (2, 1):
        last = (x.shape[axis] - size) // stride * stride
        shifts = (lax.slice_in_dim(x, start, start + last + 1, stride, axis) for start in range(size))
        x = functools.reduce(_first_maximum, shifts)
    return x


def _first_maximum(x, y):
    return jnp.where((y > x) | jnp.isnan(y), y, x)
