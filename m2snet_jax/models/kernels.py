"""Convolutions, max-pool and their gradients, with the forms that a CPU computes faster beside the plain ones.

Each form is the same sum in another order. `lax.platform_dependent` chooses between them when a program is lowered:
a program for a GPU or a TPU holds the plain forms only. The savings given here are from docs/performance.md.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

# Winograd's F(4, 3) computes four neighbouring outputs of a filter of three from six products instead of twelve:
# OUTPUT ((KERNEL k) · (INPUT x)). Source: Lavin and Gray, Fast Algorithms for Convolutional Neural Networks,
# arXiv 1509.09308.
INPUT = np.array(
    (
        (4, 0, -5, 0, 1, 0),
        (0, -4, -4, 1, 1, 0),
        (0, 4, -4, -1, 1, 0),
        (0, -2, -1, 2, 1, 0),
        (0, 2, -1, -2, 1, 0),
        (0, 4, 0, -5, 0, 1),
    )
)
KERNEL = np.array(((6, 0, 0), (-4, -4, -4), (-4, 4, -4), (1, 2, 4), (1, -2, 4), (0, 0, 24))) / 24
OUTPUT = np.array(((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1)))
WINOGRAD_CHANNELS = 128  # with fewer, the sums around the products cost more than the products saved
ONES = (1, 1)  # strides along the columns and along the rows
Maps = Float[Array, 'batch height width channels']
Kernel = Float[Array, 'size size in out']


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolve(x: Maps, kernel: Kernel, strides: tuple[int, int] = ONES) -> Maps:
    """Convolves with zero padding size//2. Height and width of the result are those of `x` / strides, rounded up."""
    return _convolve_plain(x, kernel, strides)


def _convolve_plain(x: Maps, kernel: Kernel, strides: tuple[int, int]) -> Maps:
    if kernel.shape[0] == 1 and strides == ONES:
        return jnp.matmul(x, kernel[0, 0])
    padding = [(kernel.shape[0] // 2, kernel.shape[0] // 2)] * 2
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=('NHWC', 'HWIO', 'NHWC'))


def _convolve_forward(x, kernel, strides):
    return _convolve_plain(x, kernel, strides), (x, kernel)


def _convolve_backward(strides, residuals, dy):
    x, kernel = residuals
    (dx,) = jax.vjp(lambda x: _convolve_plain(x, kernel, strides), x)[1](dy)
    size, _, inputs, outputs = kernel.shape
    plain = functools.partial(_dkernel_plain, size, strides)
    if size == 1 and strides == ONES:
        dkernel = lax.platform_dependent(x, dy, cpu=_dkernel_by_rows, default=_dkernel_by_axes)
    elif size == 3 and strides == ONES and inputs >= 2 * outputs:
        dkernel = lax.platform_dependent(x, dy, cpu=_dkernel_by_windows, default=plain)
    else:
        dkernel = plain(x, dy)
    return dx, dkernel


convolve.defvjp(_convolve_forward, _convolve_backward)


def _dkernel_plain(size: int, strides: tuple[int, int], x: Maps, dy: Maps) -> Kernel:
    """Returns the gradient of the kernel by autodiff."""
    zeros = jnp.zeros((size, size, x.shape[-1], dy.shape[-1]), x.dtype)
    return jax.vjp(lambda kernel: _convolve_plain(x, kernel, strides), zeros)[1](dy)[0]


def _dkernel_by_rows(x: Maps, dy: Maps) -> Kernel:
    """Returns the same for 1×1 and stride 1 as a product over one axis.

    For one over three axes XLA writes a transposed copy of dy on a CPU: with the max-pool by axis below, this takes
    19 % off a training step at 128².
    """
    return jnp.dot(x.reshape(-1, x.shape[-1]).T, dy.reshape(-1, dy.shape[-1]))[None, None]


def _dkernel_by_axes(x: Maps, dy: Maps) -> Kernel:
    """Returns the same as a product over three axes. To make them one axis, a TPU would copy packed maps."""
    return jnp.tensordot(x, dy, ((0, 1, 2), (0, 1, 2)))[None, None]


def _dkernel_by_windows(x: Maps, dy: Maps) -> Kernel:
    """Returns the same for 3×3 and stride 1 as one matrix product of x and the nine shifts of dy.

    It takes another 4 % off a training step at 128².
    """
    height, width, outputs = dy.shape[1:]
    padded = jnp.pad(dy, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifts = [padded[:, 2 - i : 2 - i + height, 2 - j : 2 - j + width] for i in range(3) for j in range(3)]
    windows = jnp.concatenate(shifts, axis=-1).reshape(-1, 9 * outputs)
    product = jnp.dot(x.reshape(-1, x.shape[-1]).T, windows)
    return product.reshape(-1, 3, 3, outputs).transpose(1, 2, 0, 3)


@jax.custom_vjp
def convolve_frozen(x: Maps, kernel: Kernel) -> Maps:
    """Convolves as `convolve` does with stride 1, by a kernel that is not trained.

    On a CPU, a 3×3 convolution of at least `WINOGRAD_CHANNELS` channels in and out takes Winograd's form. In float32
    its results differ from those of `convolve` by about 1e-5 of their standard deviation.
    """
    if kernel.shape[0] != 3 or min(kernel.shape[2:]) < WINOGRAD_CHANNELS or x.dtype not in (jnp.float32, jnp.float64):
        return _convolve_plain(x, kernel, ONES)
    return lax.platform_dependent(
        x, kernel, cpu=_convolve_winograd, default=lambda x, kernel: _convolve_plain(x, kernel, ONES)
    )


def _frozen_forward(x, kernel):
    return convolve_frozen(x, kernel), (x, kernel)


def _frozen_backward(residuals, dy):
    x, kernel = residuals
    rotated = kernel[::-1, ::-1].swapaxes(2, 3)
    return convolve_frozen(dy, rotated), _dkernel_plain(kernel.shape[0], ONES, x, dy)


convolve_frozen.defvjp(_frozen_forward, _frozen_backward)


def _convolve_winograd(x: Maps, kernel: Kernel) -> Maps:
    """Convolves 3×3 with half the products: F(4, 3) along the rows, the usual sum over columns and channels.

    It takes 9 % off a training step with LossNet at 224².
    """
    batch, height, width, _ = x.shape
    tiles = -(-width // 4)
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 4 * tiles - width + 1), (0, 0)))
    end = 4 * (tiles - 1) + 1
    columns = [padded[:, :, j : j + end : 4] for j in range(6)]
    kernels = jnp.einsum('ts,hsio->thio', KERNEL.astype(x.dtype), kernel, precision='highest')
    products = [
        lax.conv_general_dilated(
            _weighted_sum(row, columns), column[:, None], (1, 1), 'VALID', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
        )
        for row, column in zip(INPUT, kernels, strict=True)
    ]
    outputs = jnp.stack([_weighted_sum(row, products) for row in OUTPUT], axis=3)
    return outputs.reshape(batch, height, 4 * tiles, -1)[:, :, :width]


def _weighted_sum(weights, arrays) -> Any:
    return sum(int(weight) * array for weight, array in zip(weights, arrays, strict=True) if weight)


@jax.custom_vjp
def convolve_depthwise(x: Maps, kernel: Float[Array, '3 3 1 channels']) -> Maps:
    """Convolves each channel by itself, 3×3, with zero padding 1."""
    return lax.platform_dependent(x, kernel, cpu=_depthwise_by_shifts, default=_depthwise_plain)


def _depthwise_plain(x: Maps, kernel: Float[Array, '3 3 1 channels']) -> Maps:
    return lax.conv_general_dilated(
        x, kernel, (1, 1), [(1, 1)] * 2, dimension_numbers=('NHWC', 'HWIO', 'NHWC'), feature_group_count=x.shape[-1]
    )


def _depthwise_by_shifts(x: Maps, kernel: Float[Array, '3 3 1 channels']) -> Maps:
    """Returns the same as a sum of nine shifted products.

    On a CPU it takes a fortieth of the time of the plain form.
    """
    height, width = x.shape[1:3]
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    products = (padded[:, i : i + height, j : j + width] * kernel[i, j, 0] for i in range(3) for j in range(3))
    return functools.reduce(jnp.add, products)


def _depthwise_forward(x, kernel):
    return convolve_depthwise(x, kernel), (x, kernel)


def _depthwise_backward(residuals, dy):
    def plain(x, kernel, dy):
        return jax.vjp(_depthwise_plain, x, kernel)[1](dy)

    def by_shifts(x, kernel, dy):
        return _depthwise_by_shifts(dy, kernel[::-1, ::-1]), _depthwise_dkernel_by_rows(x, dy)

    return lax.platform_dependent(*residuals, dy, cpu=by_shifts, default=plain)


convolve_depthwise.defvjp(_depthwise_forward, _depthwise_backward)


def _depthwise_dkernel_by_rows(x: Maps, dy: Maps) -> Float[Array, '3 3 1 channels']:
    """Returns the gradient of the kernel: nine sums of shifted products, four rows at a time and then over the rest.

    On a CPU a sum over all pixels at once takes ten times as long.
    """
    height, width, channels = x.shape[1:]
    more = -height % 4  # rows of zeros
    padded = jnp.pad(x, ((0, 0), (1, 1 + more), (1, 1), (0, 0)))
    dy = jnp.pad(dy, ((0, 0), (0, more), (0, 0), (0, 0)))

    def total(i, j):
        products = (padded[:, r + i : r + i + height + more - 3 : 4, j : j + width] * dy[:, r::4] for r in range(4))
        flat = functools.reduce(jnp.add, products).reshape(-1, channels)
        return jnp.dot(jnp.ones(len(flat), x.dtype), flat, precision='highest')

    sums = [jnp.stack([total(i, j) for j in range(3)]) for i in range(3)]
    return jnp.stack(sums)[:, :, None]


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def max_pool(x: Maps, size: int, stride: int, padding: int = 0) -> Maps:
    """Returns the maximum of each size×size window; of equal values the first gets the gradient."""
    return _max_pool_plain(x, size, stride, padding)


def _max_pool_plain(x: Maps, size: int, stride: int, padding: int) -> Maps:
    border = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, size, size, 1), (1, stride, stride, 1), border)


def _max_pool_by_axis(x: Maps, size: int, stride: int, padding: int) -> Maps:
    """Returns the same maximum, along the rows first and then along the columns.

    The gradient of the plain form finds the maximum of each window again; on a CPU that takes several times as long.
    """
    x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)), constant_values=-jnp.inf)
    for axis in (2, 1):
        last = (x.shape[axis] - size) // stride * stride
        shifts = (lax.slice_in_dim(x, start, start + last + 1, stride, axis) for start in range(size))
        x = functools.reduce(_first_maximum, shifts)
    return x


def _first_maximum(x, y):
    return jnp.where((y > x) | jnp.isnan(y), y, x)


def _max_pool_forward(x, *window):
    return lax.platform_dependent(
        x, cpu=lambda x: _max_pool_by_axis(x, *window), default=lambda x: _max_pool_plain(x, *window)
    ), x


def _max_pool_backward(size, stride, padding, x, dy):
    def gradient_of(pool):
        return lambda x, dy: jax.vjp(lambda x: pool(x, size, stride, padding), x)[1](dy)

    return lax.platform_dependent(x, dy, cpu=gradient_of(_max_pool_by_axis), default=gradient_of(_max_pool_plain))


max_pool.defvjp(_max_pool_forward, _max_pool_backward)
