"""MSNet (MICCAI 2021) and M2SNet (arXiv 2303.10894): encoder → reduction → pyramid → enhancement → decoder."""

import inspect
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from m2snet_jax.errors import InputError
from m2snet_jax.models.batch_norm import at_least_float32
from m2snet_jax.models.encoders import ENCODERS
from m2snet_jax.models.layers import Conv, ConvBatchNormRelu, resize
from m2snet_jax.models.scopes import name_modules, scoped
from m2snet_jax.models.subtraction import CHANNELS, COLUMNS, OPERATIONS, SubtractionPyramid, units_of

ENHANCED = (3, 2, 1)  # the levels whose sums are convolved; that of level 4 goes to the decoder as it is


class MSNet(nnx.Module):
    """Multi-scale subtraction network: normalised images → logits.

    Height and width are at least 33 and may be odd. Logits are at least float32. `train()` and `eval()` choose between
    the statistics of the batch and the running ones. What a smaller pyramid does not need is not made: with one column
    there are no units, no filters and no reduction of the coarsest level.

    Args:
        encoder: a name of `ENCODERS`; 'res2net14' is for tests.
        classes: foreground classes, one logit map each.
        columns: of the pyramid, 1 to 5. Column n has the units with n levels in their name. The enhancement of a level
            sums its units of columns 2 … `columns`; with 1 it takes the level itself.
        filters: sizes of the full-one filters, odd and different; None: those of the class.
        operation: how a unit combines its operands, a name of `OPERATIONS`.
        add_level: an enhancement also adds the level itself, as the paper's figure draws it.
        drop_path: highest share of the images for which a residual branch of the encoder is left out in training; 0 for
            an encoder without drop path.
        dtype, param_dtype: of the convolutions and their maps, and of parameters and statistics.
        rngs: source of the initial weights.

    Raises:
        InputError: as `check_switches`.
    """

    filter_sizes: tuple[int, ...] = ()

    def __init__(
        self,
        encoder: str = 'res2net50',
        classes: int = 1,
        *,
        columns: int = COLUMNS,
        filters: Sequence[int] | None = None,
        operation: str = 'subtract',
        add_level: bool = False,
        drop_path: float = 0.0,
        dtype: Dtype = jnp.float32,
        param_dtype: Dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        check_switches(encoder, columns, filters, operation, add_level, drop_path)
        self.filter_sizes = self.sizes_used(columns, filters)
        self.operation, self.add_level = operation, add_level
        module = {'dtype': dtype, 'param_dtype': param_dtype, 'rngs': rngs}
        options: dict[str, Any] = {**module, 'drop_path': drop_path} if drop_path else module
        self.encoder: Any = ENCODERS[encoder](encoder, **options)
        channels = self.encoder.channels[1:] if columns > 1 else self.encoder.channels[1:-1]
        self.reduction = nnx.List([ConvBatchNormRelu(n, CHANNELS, **module) for n in channels])
        self.pyramid = SubtractionPyramid(self.filter_sizes, columns=columns, operation=operation, **module)
        names = [f'level{level}' for level in ENHANCED]
        self.enhancement = nnx.Dict({name: ConvBatchNormRelu(CHANNELS, CHANNELS, **module) for name in names})
        self.x5_dem_5 = ConvBatchNormRelu(self.encoder.channels[-1], CHANNELS, **module)
        self.output4 = ConvBatchNormRelu(CHANNELS, CHANNELS, **module)
        self.output3 = ConvBatchNormRelu(CHANNELS, CHANNELS, **module)
        self.output2 = ConvBatchNormRelu(CHANNELS, CHANNELS, **module)
        self.output1 = Conv(CHANNELS, classes, use_bias=True, **module)
        name_modules(self)

    @classmethod
    def sizes_used(cls, columns: int, filters: Sequence[int] | None) -> tuple[int, ...]:
        """Returns the sizes of the filters that a network of this class has; none without units."""
        return () if columns == 1 else cls.filter_sizes if filters is None else tuple(filters)

    @property
    def switches(self) -> dict[str, Any]:
        """The switches of the network by name: columns, filters, operation and add_level."""
        return {
            'columns': self.pyramid.columns,
            'filters': self.filter_sizes,
            'operation': self.operation,
            'add_level': self.add_level,
        }

    @scoped
    def __call__(
        self,
        images: Float[Array, 'batch height width 3'],
        key: Array | None = None,
        *,
        frozen: ArrayLike | None = None,
    ) -> Float[Array, 'batch height width classes']:
        """Returns the logits of a batch of normalised images.

        `key` is a random key for the encoder's drop path in training. In training mode, `frozen`, a bool that may be
        traced, makes the shared batch norms of M2SNet's full-one filters use and keep their running statistics.
        """
        encoded = self.encoder(images) if key is None else self.encoder(images, key)
        maps = self.pyramid(self.levels(encoded), frozen)
        logits = self._decode(encoded[-1], maps)
        return resize(logits.astype(at_least_float32(logits.dtype)), *images.shape[1:3])

    def levels(self, encoded: Sequence[Array]) -> list[Array]:
        """Returns the levels of the pyramid, finest first: the encoder's maps, those after the first reduced."""
        first, *deeper = encoded
        # With one column the last map has no reduction.
        return [first, *(reduce(x) for reduce, x in zip(self.reduction, deeper, strict=False))]

    def _decode(self, x5: Array, maps: dict[str, Array]) -> Array:
        """Combines the maps of each level and decodes from the coarsest level to the finest."""
        levels = [self._sum(4, maps), *(self.enhancement[f'level{n}'](self._sum(n, maps)) for n in ENHANCED)]
        outputs = (self.output4, self.output3, self.output2, self.output1)
        decoded = self.x5_dem_5(x5)
        for output, level in zip(outputs, levels, strict=True):
            decoded = output(resize(decoded, *level.shape[1:3]) + level)
        return decoded

    def _sum(self, level: int, maps: dict[str, Array]) -> Array:
        """Sums the units of a level; with `add_level`, or without units, also the level itself."""
        names = [name for _, _, name in units_of(self.pyramid.columns) if name.endswith(f'_x{level}')]
        first, *others = names + ([f'x{level}'] if self.add_level or not names else [])
        return sum((maps[name] for name in others), start=maps[first])


class M2SNet(MSNet):
    """MSNet with multi-scale subtraction units: full-one filters of 3×3 and 5×5, shared by all units."""

    filter_sizes = (3, 5)


MODELS: dict[str, type[MSNet]] = {'m2snet': M2SNet, 'msnet': MSNet}


def check_switches(
    encoder: str, columns: int, filters: Sequence[int] | None, operation: str, add_level: bool, drop_path: float
) -> None:
    """Raises InputError, '<switch>=<value>: …', for the first of these arguments of `MSNet` that cannot be used.

    These are a number of columns that is not 1 to 5, filters of even or equal sizes, an unknown operation, `add_level`
    where the level is all that an enhancement has, and drop path for an encoder that has none.
    """
    if columns not in range(1, COLUMNS + 1):
        raise InputError(f'columns={columns}: must be from 1 to {COLUMNS}')
    sizes = tuple(filters or ())
    for size in sizes:
        if not isinstance(size, int) or size < 1 or size % 2 == 0:
            raise InputError(f'filters={sizes}: {size} found, a size must be an odd number: 1, 3, 5, …')
    if len(set(sizes)) < len(sizes):
        raise InputError(f'filters={sizes}: name each size once')
    if operation not in OPERATIONS:
        raise InputError(f'operation={operation}: must be one of {", ".join(OPERATIONS)}')
    if add_level and columns == 1:
        raise InputError(f'add_level={add_level}: with columns=1 an enhancement is the level; leave it False')
    if not 0 <= drop_path < 1:
        raise InputError(f'drop_path={drop_path}: must be from 0 up to 1')
    module: Any = ENCODERS[encoder].module
    if drop_path and 'drop_path' not in inspect.signature(module.__init__).parameters:
        raise InputError(f'drop_path={drop_path}: {encoder} has no drop path; leave it 0')
