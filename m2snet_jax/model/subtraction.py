"""Subtraction units and the pyramid they form (MSNet §2.1; M2SNet §III-B and III-C)."""

import jax.numpy as jnp
from flax import nnx
from jax import lax

from m2snet_jax.model.layers import BatchNorm, ConvBatchNormRelu, at_least_float32, box_sum, resize

CHANNELS = 64
# The ten units as (coarse, fine, name), in the order they are computed, which is also the order in which
# they update the running statistics they share. A level and what has been made of it so far go by one name.
TRIANGLE = (
    ('x5', 'x4', 'x5_x4'),
    ('x4', 'x3', 'x4_x3'),
    ('x3', 'x2', 'x3_x2'),
    ('x2', 'x1', 'x2_x1'),
    ('x5_x4', 'x4_x3', 'x5_x4_x3'),
    ('x4_x3', 'x3_x2', 'x4_x3_x2'),
    ('x3_x2', 'x2_x1', 'x3_x2_x1'),
    ('x5_x4_x3', 'x4_x3_x2', 'x5_x4_x3_x2'),
    ('x4_x3_x2', 'x3_x2_x1', 'x4_x3_x2_x1'),
    ('x5_dem_4', 'x4_x3_x2_x1', 'x5_x4_x3_x2_x1'),
)


def absolute(x):
    """|x| whose gradient is 0 where x is 0, as in PyTorch: equal operands do occur, in bfloat16 above all."""
    return x * lax.stop_gradient(jnp.sign(x))


class FullOneFilter(nnx.Module):
    """ReLU(BN(x * ones)) with a k×k filter of ones over all channels to all channels (M2SNet §III-B).

    Computed in its exact cheap form: every output channel of that convolution is the same sum over channels and
    window, so the sum is made once, in at least float32, and only the affine part of the batch norm is per channel.
    `[B, H, W, 64]` → `[B, H, W, 64]`; `fixed` is the batch norm's.
    """

    def __init__(self, size, *, param_dtype=jnp.float32):
        self.size = size
        self.norm = BatchNorm(CHANNELS, param_dtype=param_dtype)

    def __call__(self, x, fixed=None):
        total = x.sum(-1, keepdims=True, dtype=at_least_float32(x.dtype))
        return nnx.relu(self.norm(box_sum(total, self.size), fixed)).astype(x.dtype)


class SubtractionUnit(nnx.Module):
    """CBR(|A − B| + Σ_k |f_k(A) − f_k(B)|) of two maps `[B, H, W, 64]`.

    Without filters it is MSNet's unit, with full-one filters of 3×3 and 5×5 M2SNet's multi-scale unit. The filters
    are given with each call, since one pair serves all ten units.
    """

    def __init__(self, *, dtype=jnp.float32, param_dtype=jnp.float32, rngs):
        self.project = ConvBatchNormRelu(CHANNELS, CHANNELS, dtype=dtype, param_dtype=param_dtype, rngs=rngs)

    def __call__(self, coarse, fine, filters=(), fixed=None):
        difference = absolute(coarse - fine)
        for full_one in filters:
            difference += absolute(full_one(coarse, fixed) - full_one(fine, fixed))
        return self.project(difference)


class SubtractionPyramid(nnx.Module):
    """The triangle of ten units over five levels of 64 channels.

    Takes the levels finest first, each `[B, H_i, W_i, 64]`, and returns all maps by name: `x1` … `x5` and the ten
    units' outputs, a unit's output having the size of its finer operand.
    """

    def __init__(self, filter_sizes=(), *, dtype=jnp.float32, param_dtype=jnp.float32, rngs):
        module = {'dtype': dtype, 'param_dtype': param_dtype, 'rngs': rngs}
        self.filters = nnx.List([FullOneFilter(size, param_dtype=param_dtype) for size in filter_sizes])
        self.units = nnx.Dict({name: SubtractionUnit(**module) for _, _, name in TRIANGLE})
        self.x5_dem_4 = ConvBatchNormRelu(CHANNELS, CHANNELS, **module)

    def __call__(self, levels, fixed=None):
        maps = {f'x{number}': level for number, level in enumerate(levels, start=1)}
        for coarse, fine, name in TRIANGLE:
            if coarse == 'x5_dem_4':
                maps['x5_dem_4'] = self.x5_dem_4(maps['x5_x4_x3_x2'])
            resized = resize(maps[coarse], *maps[fine].shape[1:3])
            maps[name] = self.units[name](resized, maps[fine], self.filters, fixed)
        return maps
