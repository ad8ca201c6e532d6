"""Pillow's bilinear resize inside a program: 8-bit levels come out as Pillow writes them, floats equal to rounding.

Each axis is a product with a matrix, and the matrix is computed in the program from sizes that may be symbolic, so that
one exported program takes images of any size. Source: Pillow's `Resample.c`: a triangle as wide as two pixels of the
coarser grid (hence antialiased where it shrinks), width first, then height; 8-bit levels are weighed in fixed point of
22 bits and rounded to 8 bits after each axis.
"""

import jax.numpy as jnp
import PIL
from jax import lax

_HALF_BITS = 11  # fixed-point weights are kept as two halves, so that float32 products with levels are exact
_DIGITS = (5, 6)  # bits found at once of each half: remainders stay below 2³¹ for sides up to 76,000 at 352 pixels


def resize_levels(levels, height, width):
    """Resizes `[B, H, W, C]` of levels 0…255 to `[B, height, width, C]`; float32 that holds integers, from any dtype.

    Equal to Pillow's bytes up to a 16-fold reduction; beyond it float32 may lose the last bit of a sum, which can
    change a level by one where it was a tie.
    """
    source = levels.shape[1:3]
    halves = {1: _halves(source[0], height), 2: _halves(source[1], width)}

    def along(axis, x):
        high, low = (_along(axis, half, x) for half in halves[axis])
        total = high.astype(jnp.int32) * 2**_HALF_BITS + low.astype(jnp.int32) + 2 ** (2 * _HALF_BITS - 1)
        return lax.div(total, jnp.int32(2 ** (2 * _HALF_BITS))).astype(jnp.float32)

    first = _height_first(*source, height, width)
    return lax.cond(first, lambda x: along(2, along(1, x)), lambda x: along(1, along(2, x)), levels.astype(jnp.float32))


def _height_first(height, width, to_height, to_width):
    """Whether Pillow resizes height before width: from version 13 on where height shrinks by far more pixels."""
    if int(PIL.__version__.partition('.')[0]) < 13:
        return False
    sizes = (jnp.asarray(size, jnp.int32) for size in (height, width, to_height, to_width))
    height, width, to_height, to_width = sizes
    return (height > to_height) & (height - to_height > 2 * (width - to_width))


def resize_floats(x, height, width):
    """Resizes float32 `[B, H, W, C]` to `[B, height, width, C]`, as Pillow does images of mode F."""
    for axis, target in ((2, width), (1, height)):
        weights, sums = _weights(x.shape[axis], target)
        x = _along(axis, weights.astype(jnp.float32) / sums.astype(jnp.float32), x)
    return x


def _along(axis, matrix, x):
    return jnp.einsum('oh,bhwc->bowc' if axis == 1 else 'ow,bhwc->bhoc', matrix, x, precision='highest')


def _weights(source, target):
    """Returns int32 weights [target, source], the triangle, exact, and the sum of each row at all its places.

    Pixel j of n lies at (j + ½) / n, pixel i of m at (i + ½) / m; times 2nm their distance is |(2j + 1)m − (2i + 1)n|,
    and the triangle ends at 2 max(n, m).
    """
    n, m = jnp.asarray(source, jnp.int32), jnp.asarray(target, jnp.int32)
    i, j = (lax.broadcasted_iota(jnp.int32, (target, source), axis) for axis in (0, 1))
    weights = jnp.maximum(2 * jnp.maximum(n, m) - jnp.abs((2 * j + 1) * m - (2 * i + 1) * n), 0)
    return weights, jnp.broadcast_to(weights.sum(1, keepdims=True), weights.shape)


def _halves(source, target):
    """Returns the weights in units of 2⁻²², rounded: float32 [target, source] of the upper and the lower 11 bits."""
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
