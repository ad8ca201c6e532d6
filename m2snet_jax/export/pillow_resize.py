"""Pillow's bilinear resize in JAX: 8-bit levels equal Pillow's, floats up to rounding.

Each axis is a product with a matrix that is computed in the program from sizes that may be symbolic, so that one
exported program takes images of any size. Source: Pillow's `Resample.c`: a triangle as wide as two pixels of the
coarser grid (hence antialiased where it shrinks), width first, then height; 8-bit levels are weighed in fixed point of
22 bits and rounded to 8 bits after each axis.
"""

from typing import Any

import jax.numpy as jnp
import PIL
from jax import lax
from jaxtyping import Array, Float, Int32, Num

Size = int | Any  # or a symbolic dimension of jax.export
_HALF_BITS = 11  # fixed-point weights are kept as two halves, so that float32 products with levels are exact
_DIGITS = (5, 6)  # bits computed at once of each half: remainders stay below 2³¹ for sides up to 76,000 at 352 pixels


def resize_levels(levels: Num[Array, 'batch h w c'], height: Size, width: Size) -> Float[Array, 'batch height width c']:
    """Resizes integer levels 0…255; the result holds integers too.

    Equal to Pillow's bytes up to a 16-fold reduction; beyond it float32 may lose the last bit of a sum, which can
    change a level by one at a tie.
    """
    _, rows, columns, _ = levels.shape
    heights, widths = _halves(rows, height), _halves(columns, width)

    def rounded(high: Array, low: Array) -> Array:
        total = high.astype(jnp.int32) * 2**_HALF_BITS + low.astype(jnp.int32) + 2 ** (2 * _HALF_BITS - 1)
        return lax.div(total, jnp.int32(2 ** (2 * _HALF_BITS))).astype(jnp.float32)

    def along_height(x):
        return rounded(*[_product(half, x) for half in heights])

    def along_width(x):
        return rounded(*[_product(x, half.T) for half in widths])

    def height_first(x):
        return _channels_last(along_width(along_height(_channels_first(x))))

    def width_first(x):
        return _channels_last(along_height(along_width(_channels_first(x))))

    first = _height_first(rows, columns, height, width)
    return lax.cond(first, height_first, width_first, levels.astype(jnp.float32))


def resize_floats(x: Float[Array, 'batch h w c'], height: Size, width: Size) -> Float[Array, 'batch height width c']:
    """Resizes as Pillow does images of mode F."""
    heights, widths = (_shares(*sizes) for sizes in zip(x.shape[1:3], (height, width), strict=True))
    return _channels_last(_product(heights, _product(_channels_first(x), widths.T)))


def _channels_first(x):
    return jnp.transpose(x, (0, 3, 1, 2))


def _channels_last(x):
    return jnp.transpose(x, (0, 2, 3, 1))


def _product(a, b):
    return jnp.matmul(a, b, precision='highest')


def _height_first(height, width, to_height, to_width):
    """Whether Pillow resizes height before width: from version 13 on where height shrinks by far more pixels."""
    if int(PIL.__version__.partition('.')[0]) < 13:
        return False
    height, width, to_height, to_width = (jnp.asarray(n, jnp.int32) for n in (height, width, to_height, to_width))
    return (height > to_height) & (height - to_height > 2 * (width - to_width))


def _weights(source: Size, target: Size) -> tuple[Int32[Array, 'target source'], Int32[Array, 'target source']]:
    """Returns the triangle's weights, exact, and the sum of each row, broadcast.

    Pixel j of n lies at (j + ½) / n, pixel i of m at (i + ½) / m; times 2nm their distance is |(2j + 1)m − (2i + 1)n|,
    and the triangle ends at 2 max(n, m).
    """
    n, m = jnp.asarray(source, jnp.int32), jnp.asarray(target, jnp.int32)
    i, j = (lax.broadcasted_iota(jnp.int32, (target, source), axis) for axis in (0, 1))
    weights = jnp.maximum(2 * jnp.maximum(n, m) - jnp.abs((2 * j + 1) * m - (2 * i + 1) * n), 0)
    return weights, jnp.broadcast_to(weights.sum(1, keepdims=True), weights.shape)


def _shares(source: Size, target: Size) -> Float[Array, 'target source']:
    """Returns the weights divided by the sum of their row."""
    weights, sums = _weights(source, target)
    return weights.astype(jnp.float32) / sums.astype(jnp.float32)


def _halves(source: Size, target: Size) -> tuple[Float[Array, 'target source'], Float[Array, 'target source']]:
    """Returns the shares in units of 2⁻²², rounded: the upper and the lower 11 bits, in float32."""
    rest, sums = _weights(source, target)
    halves = []
    for _ in range(2):
        half = 0
        for bits in _DIGITS:  # long division, since 32 bits do not hold weights · 2²²
            digits = lax.div(rest * 2**bits, sums)
            half, rest = half * 2**bits + digits, rest * 2**bits - digits * sums
        halves.append(half)
    high, low = halves[0], halves[1] + (2 * rest >= sums)
    return high.astype(jnp.float32), low.astype(jnp.float32)
