"""Convolutions, and their gradients in the form that a machine computes fastest.

Every form is the same sum in another order. What pays on a CPU alone is chosen when a program is lowered, by
`lax.platform_dependent`: one for a GPU or a TPU holds none of it.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

# Winograd's F(4, 3): four neighbouring outputs of a filter of three from six products in place of twelve (Lavin and
# Gray, Fast Algorithms for Convolutional Neural Networks, arXiv 1509.09308): OUTPUT ((KERNEL k) · (INPUT x)).
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
WIDE = 128  # channels from which on half the products are worth the sums around them


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolve(x, kernel, stride=1):
    """A k×k convolution with zero padding k//2.

    `[B, H, W, in]` and a kernel `[k, k, in, out]` → `[B, ⌈H/stride⌉, ⌈W/stride⌉, out]`.
    """
    return _convolve(x, kernel, stride)


def _convolve(x, kernel, stride):
    if kernel.shape[0] == 1 and stride == 1:
        return jnp.matmul(x, kernel[0, 0])
    padding = [(kernel.shape[0] // 2, kernel.shape[0] // 2)] * 2
    return lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=('NHWC', 'HWIO', 'NHWC'))


def _forward(x, kernel, stride):
    return _convolve(x, kernel, stride), (x, kernel)


def _backward(stride, kept, gradient):
    x, kernel = kept
    (to_x,) = jax.vjp(lambda x: _convolve(x, kernel, stride), x)[1](gradient)
    size, _, inputs, outputs = kernel.shape
    by_autodiff = functools.partial(_to_kernel, size, stride)
    if size == 1 and stride == 1:
        # Over one axis instead of three: XLA's CPU compiler transposes the gradient for three, at a tenth of a step.
        to_kernel = jnp.dot(x.reshape(-1, inputs).T, gradient.reshape(-1, outputs))[None, None]
    elif size == 3 and stride == 1 and inputs >= 2 * outputs:
        to_kernel = lax.platform_dependent(x, gradient, cpu=_to_kernel_by_windows, default=by_autodiff)
    else:
        to_kernel = by_autodiff(x, gradient)
    return to_x, to_kernel


convolve.defvjp(_forward, _backward)


def _to_kernel(size, stride, x, gradient):
    """The gradient to the kernel by autodiff."""
    zeros = jnp.zeros((size, size, x.shape[-1], gradient.shape[-1]), x.dtype)
    return jax.vjp(lambda kernel: _convolve(x, kernel, stride), zeros)[1](gradient)[0]


def _to_kernel_by_windows(x, gradient):
    """The same for 3×3 and stride 1 as one product of x and the nine shifts of a gradient with fewer channels."""
    height, width, outputs = gradient.shape[1:]
    padded = jnp.pad(gradient, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifts = [padded[:, 2 - i : 2 - i + height, 2 - j : 2 - j + width] for i in range(3) for j in range(3)]
    windows = jnp.concatenate(shifts, axis=-1).reshape(-1, 9 * outputs)
    product = jnp.dot(x.reshape(-1, x.shape[-1]).T, windows)
    return product.reshape(-1, 3, 3, outputs).transpose(1, 2, 0, 3)


@jax.custom_vjp
def convolve_frozen(x, kernel):
    """The convolution of `convolve` with stride 1 by a kernel that is not trained, faster on a CPU where it is wide.

    In float32 its results differ from those of `convolve` by some 1e-5 of their standard deviation.
    """
    if kernel.shape[0] != 3 or min(kernel.shape[2:]) < WIDE or x.dtype not in (jnp.float32, jnp.float64):
        return _convolve(x, kernel, 1)
    return lax.platform_dependent(x, kernel, cpu=_winograd, default=lambda x, kernel: _convolve(x, kernel, 1))


def _frozen_forward(x, kernel):
    return convolve_frozen(x, kernel), (x, kernel)


def _frozen_backward(kept, gradient):
    x, kernel = kept
    turned = kernel[::-1, ::-1].swapaxes(2, 3)
    return convolve_frozen(gradient, turned), _to_kernel(kernel.shape[0], 1, x, gradient)


convolve_frozen.defvjp(_frozen_forward, _frozen_backward)


def _winograd(x, kernel):
    """A 3×3 convolution with half the products: F(4, 3) along the rows, the usual sum over columns and channels."""
    batch, height, width, _ = x.shape
    tiles = -(-width // 4)
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 4 * tiles - width + 1), (0, 0)))
    end = 4 * (tiles - 1) + 1
    columns = [padded[:, :, j : j + end : 4] for j in range(6)]
    kernels = jnp.einsum('ts,hsio->thio', KERNEL.astype(x.dtype), kernel, precision='highest')
    products = [
        lax.conv_general_dilated(
            _weighted_sum(row, columns), by[:, None], (1, 1), 'VALID', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
        )
        for row, by in zip(INPUT, kernels, strict=True)
    ]
    outputs = jnp.stack([_weighted_sum(row, products) for row in OUTPUT], axis=3)
    return outputs.reshape(batch, height, 4 * tiles, -1)[:, :, :width]


def _weighted_sum(weights, arrays):
    return sum(int(weight) * array for weight, array in zip(weights, arrays, strict=True) if weight)


def torch_uniform(key, shape, dtype, fan_in):
    """PyTorch's default for weight and bias of a convolution: uniform within ±1/√fan_in."""
    bound = fan_in**-0.5
    return jax.random.uniform(key, shape, dtype, -bound, bound)


def he_normal_fan_out(key, shape, dtype, fan_in):
    """The encoder's start: normal with variance 2 / (height · width · output channels)."""
    del fan_in
    height, width, _, channels = shape
    return jax.random.normal(key, shape, dtype) * (2 / (height * width * channels)) ** 0.5


def he_normal_fan_in(key, shape, dtype, fan_in):
    """Normal with variance 2 / fan_in, which keeps activations of one size through ReLU layers."""
    return jax.random.normal(key, shape, dtype) * (2 / fan_in) ** 0.5


class Conv(nnx.Module):
    """A k×k convolution with zero padding k//2: `[B, H, W, in]` → `[B, ⌈H/stride⌉, ⌈W/stride⌉, out]` in `dtype`.

    The parameters are `kernel [k, k, in, out]` and, if asked for, `bias [out]`. With `frozen` they are not meant to be
    trained, and the stride is 1.
    """

    def __init__(
        self,
        in_channels,
        out_channels,
        size=3,
        *,
        stride=1,
        use_bias=False,
        frozen=False,
        init=torch_uniform,
        dtype=jnp.float32,
        param_dtype=jnp.float32,
        rngs,
    ):
        self.stride, self.frozen, self.dtype = stride, frozen, dtype
        fan_in = size * size * in_channels
        self.kernel = nnx.Param(init(rngs.params(), (size, size, in_channels, out_channels), param_dtype, fan_in))
        self.bias = nnx.Param(torch_uniform(rngs.params(), (out_channels,), param_dtype, fan_in)) if use_bias else None

    def __call__(self, x):
        y = self._convolve(x.astype(self.dtype), self.kernel[...].astype(self.dtype))
        return y if self.bias is None else y + self.bias[...].astype(self.dtype)

    def _convolve(self, x, kernel):
        return convolve_frozen(x, kernel) if self.frozen else convolve(x, kernel, self.stride)
