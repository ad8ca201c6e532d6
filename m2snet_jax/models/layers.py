"""Layers that the networks share."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.typing import Dtype
from jax import lax
from jaxtyping import Array, Float

from m2snet_jax.models.batch_norm import BatchNorm
from m2snet_jax.models.initial_weights import torch_uniform
from m2snet_jax.models.kernels import Maps, convolve, convolve_frozen
from m2snet_jax.models.packing import NOT_PACKED, Packing, pack_kernel
from m2snet_jax.models.scopes import scoped


class Conv(nnx.Module):
    """A size×size convolution with zero padding size//2, as `kernels.convolve`.

    Args:
        frozen: the parameters are not trained, and the stride is 1.
        init: initialiser of the kernel, (key, shape, dtype, fan_in) → array.
        dtype, param_dtype: of the computation and its result, and of the parameters.
        rngs: source of the initial weights.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        size: int = 3,
        *,
        stride: int = 1,
        use_bias: bool = False,
        frozen: bool = False,
        init: Callable[..., Array] = torch_uniform,
        dtype: Dtype = jnp.float32,
        param_dtype: Dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.stride, self.frozen, self.dtype = stride, frozen, dtype
        fan_in = size * size * in_channels
        self.kernel = nnx.Param(init(rngs.params(), (size, size, in_channels, out_channels), param_dtype, fan_in))
        self.bias = nnx.Param(torch_uniform(rngs.params(), (out_channels,), param_dtype, fan_in)) if use_bias else None

    @scoped
    def __call__(self, x: Maps, before: Packing = NOT_PACKED, after: Packing = NOT_PACKED) -> Maps:
        """Convolves maps packed as `before` to maps packed as `after`, with columns as `pack_kernel` wants them."""
        x, kernel = x.astype(self.dtype), pack_kernel(self.kernel[...], before, after).astype(self.dtype)
        strides = self.stride, self.stride * after.columns // before.columns
        y: Any = convolve_frozen(x, kernel) if self.frozen else convolve(x, kernel, strides)
        return y if self.bias is None else y + after.spread(self.bias[...]).astype(self.dtype)


class ConvBatchNormRelu(nnx.Module):
    """A 3×3 convolution with bias, a batch norm and ReLU."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        dtype: Dtype = jnp.float32,
        param_dtype: Dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.conv = Conv(in_channels, out_channels, use_bias=True, dtype=dtype, param_dtype=param_dtype, rngs=rngs)
        self.norm = BatchNorm(out_channels, param_dtype=param_dtype)

    @scoped
    def __call__(self, x: Maps) -> Maps:
        return nnx.relu(self.norm(self.conv(x)))


@functools.cache
def _interpolation(source: int, target: int) -> Float[np.ndarray, 'target source']:
    """Returns the matrix of bilinear interpolation along one axis."""
    position = np.maximum((np.arange(target) + 0.5) * source / target - 0.5, 0)
    low = np.minimum(position.astype(int), source - 1)
    high = np.minimum(low + 1, source - 1)
    fraction = position - low
    matrix = np.zeros((target, source))
    np.add.at(matrix, (np.arange(target), low), 1 - fraction)
    np.add.at(matrix, (np.arange(target), high), fraction)
    return matrix


@jax.named_scope('resize')
def resize(x: Maps, height: int, width: int) -> Float[Array, 'batch {height} {width} channels']:
    """Resizes maps: bilinear, half-pixel centres, no antialias.

    Equal to PyTorch's `interpolate(mode='bilinear', align_corners=False)`. Computed as two products with fixed
    matrices: exact for odd sizes, without gathers, and exportable with a symbolic batch.
    """
    for axis, target in ((1, height), (2, width)):
        if x.shape[axis] != target:
            matrix = jnp.asarray(_interpolation(x.shape[axis], target), x.dtype)
            equation = 'oh,bhwc->bowc' if axis == 1 else 'ow,bhwc->bhoc'
            x = jnp.einsum(equation, matrix, x, precision='highest')
    return x


def box_sum(x: Maps, size: int) -> Maps:
    """Sums over a size×size window around each pixel, with zeros outside the image."""
    for axis in (1, 2):
        window, padding = [1] * 4, [(0, 0)] * 4
        window[axis], padding[axis] = size, (size // 2, size // 2)
        x = lax.reduce_window(x, 0.0, lax.add, window, (1, 1, 1, 1), padding)
    return x


def average_pool(x: Maps, stride: int) -> Maps:
    """Averages 3×3 with padding 1, dividing by 9 at the border too (the first block of a Res2Net stage)."""
    padding = ((0, 0), (1, 1), (1, 1), (0, 0))
    return lax.reduce_window(x, 0.0, lax.add, (1, 3, 3, 1), (1, stride, stride, 1), padding) / 9


def average_pool_ceil(x: Maps, stride: int) -> Maps:
    """Averages stride×stride; a window across the border averages its pixels inside the image only."""
    if stride == 1:
        return x
    padding = [(0, 0), *((0, -n % stride) for n in x.shape[1:3]), (0, 0)]
    window = (1, stride, stride, 1)
    inside = lax.reduce_window(np.ones((1, *x.shape[1:3], 1), x.dtype), 0.0, lax.add, window, window, padding)
    return lax.reduce_window(x, 0.0, lax.add, window, window, padding) / inside
