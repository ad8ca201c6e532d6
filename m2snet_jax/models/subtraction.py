"""Units that combine two levels, and the pyramid of at most ten of them (MSNet §2.1; M2SNet §III-B and III-C)."""

import operator
from collections.abc import Callable, Iterable, Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from m2snet_jax.models.batch_norm import BatchNorm, at_least_float32
from m2snet_jax.models.layers import ConvBatchNormRelu, box_sum, resize
from m2snet_jax.models.scopes import scoped

CHANNELS = 64
COLUMNS = 5
Maps = Float[Array, 'batch height width 64']
# The ten units as (coarse, fine, name), in the order in which they are computed. M2SNet's shared batch norms update
# their running statistics in the same order. A unit's output has the unit's name. Column n has the units with n levels
# in their name.
UNITS = (
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


def units_of(columns: int) -> list[tuple[str, str, str]]:
    """Returns the units of a pyramid of `columns` columns, as `UNITS` has them; none for 1."""
    return [unit for unit in UNITS if len(unit[2].split('_')) <= columns]


def absolute(x: Array) -> Array:
    """Returns |x| with gradient 0 where x is 0, as in PyTorch: equal operands do occur, mostly in bfloat16."""
    return x * lax.stop_gradient(jnp.sign(x))


def _side_by_side(a: Array, b: Array) -> Array:
    return jnp.concatenate([a, b], axis=-1)


# What a unit does with its two operands, or with f(A) and f(B) of a filter f; and how it joins the results.
OPERATIONS: dict[str, tuple[Callable[[Array, Array], Array], Callable[[Array, Array], Array]]] = {
    'subtract': (lambda a, b: absolute(a - b), operator.add),
    'add': (operator.add, operator.add),
    'concatenate': (_side_by_side, _side_by_side),
}


class FullOneFilter(nnx.Module):
    """ReLU(BN(x * ones)) with a size×size filter of ones over all channels to all channels (M2SNet §III-B).

    Every output channel of that convolution is the same sum over channels and
    window. It is computed once, in at least float32; only scale and bias of the batch norm differ between channels.
    """

    def __init__(self, size: int, *, param_dtype: Dtype = jnp.float32):
        self.size = size
        self.norm = BatchNorm(CHANNELS, param_dtype=param_dtype)

    def __call__(self, x: Maps, frozen: ArrayLike | None = None) -> Maps:
        total = x.sum(-1, keepdims=True, dtype=at_least_float32(x.dtype))
        return nnx.relu(self.norm(box_sum(total, self.size), frozen)).astype(x.dtype)


class SubtractionUnit(nnx.Module):
    """ConvBatchNormRelu of two maps A and B, combined by an operation of `OPERATIONS`.

    'subtract' is |A − B| + Σ_k |f_k(A) − f_k(B)|: without filters MSNet's unit, with full-one filters of 3×3 and 5×5
    M2SNet's multi-scale unit. 'add' is A + B + Σ_k (f_k(A) + f_k(B)). 'concatenate' convolves A, B, f_1(A), f_1(B), …
    side by side, `2 · (1 + number of filters)` times 64 channels. The filters are an argument of the call, since all
    units share them.
    """

    def __init__(
        self,
        operation: str = 'subtract',
        filter_count: int = 0,
        *,
        dtype: Dtype = jnp.float32,
        param_dtype: Dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.operation = operation
        maps = 2 * (1 + filter_count) if operation == 'concatenate' else 1
        self.project = ConvBatchNormRelu(maps * CHANNELS, CHANNELS, dtype=dtype, param_dtype=param_dtype, rngs=rngs)

    def __call__(
        self, coarse: Maps, fine: Maps, filters: Iterable[FullOneFilter] = (), frozen: ArrayLike | None = None
    ) -> Maps:
        combine, join = OPERATIONS[self.operation]
        combined = combine(coarse, fine)
        for full_one in filters:
            with jax.named_scope(f'full_one_{full_one.size}'):
                combined = join(combined, combine(full_one(coarse, frozen), full_one(fine, frozen)))
        if not getattr(self.project.norm, 'use_running_average', True):  # a folded norm is gone
            # Without the barrier a TPU combines the maps again for each product of the kernel's gradient.
            combined = lax.optimization_barrier(combined)
        return self.project(combined)


class SubtractionPyramid(nnx.Module):
    """The pyramid of the units of `columns` columns over the levels, all of 64 channels.

    Takes the levels finest first and returns all maps by name: the levels `x1` … `x5`, the outputs of the units, each
    of the size of its finer operand, and with five columns `x5_dem_4`. The `filter_sizes` are those of the full-one
    filters: none for MSNet, 3 and 5 for M2SNet. `operation` is that of the units.
    """

    def __init__(
        self,
        filter_sizes: Sequence[int] = (),
        *,
        columns: int = COLUMNS,
        operation: str = 'subtract',
        dtype: Dtype = jnp.float32,
        param_dtype: Dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.columns = columns
        module = {'dtype': dtype, 'param_dtype': param_dtype, 'rngs': rngs}
        unit = {'operation': operation, 'filter_count': len(filter_sizes), **module}
        self.filters = nnx.List([FullOneFilter(size, param_dtype=param_dtype) for size in filter_sizes])
        self.units = nnx.Dict({name: SubtractionUnit(**unit) for _, _, name in units_of(columns)})
        self.x5_dem_4 = ConvBatchNormRelu(CHANNELS, CHANNELS, **module) if columns == COLUMNS else None

    @scoped
    def __call__(self, levels: Iterable[Maps], frozen: ArrayLike | None = None) -> dict[str, Maps]:
        maps = {f'x{number}': level for number, level in enumerate(levels, start=1)}
        for coarse, fine, name in units_of(self.columns):
            if coarse == 'x5_dem_4':
                assert self.x5_dem_4 is not None
                maps['x5_dem_4'] = self.x5_dem_4(maps['x5_x4_x3_x2'])
            with jax.named_scope(name):
                resized = resize(maps[coarse], *maps[fine].shape[1:3])
                maps[name] = self.units[name](resized, maps[fine], self.filters, frozen)
        return maps
