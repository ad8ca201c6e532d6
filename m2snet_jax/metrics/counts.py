"""One pass over a pair of map and mask: the integer tables from which every score but wFm follows."""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Int64, UInt8, UInt16

from m2snet_jax.errors import InputError
from m2snet_jax.metrics.weighted import weighted_errors

LEVELS = np.arange(256)
Map = UInt8[np.ndarray, 'height width']
Lesion = Bool[np.ndarray, 'height width']
Mask = Map | Lesion


def check_pair(prediction: Map, mask: Mask) -> None:
    """Raises InputError where an array has another type or shape than its hint, or no pixels."""
    for name, array, types in (('prediction', prediction, ('uint8',)), ('mask', mask, ('uint8', 'bool'))):
        if not isinstance(array, np.ndarray) or array.dtype.name not in types:
            found = array.dtype.name if isinstance(array, np.ndarray) else type(array).__name__
            raise InputError(f'{name} is {found}, not {types[0]}: hand over a NumPy array of levels 0 to 255')
        if array.ndim != 2 or array.size == 0:
            raise InputError(f'{name} has shape {array.shape}, not [H, W]: hand over one grey image with pixels in it')


def lesion(mask: Mask) -> Lesion:
    """Returns where the mask is above half of its own maximum (released program: test_data.py).

    0/1 and 0/255 masks mean the same; of a 0/255 mask level 128 is lesion and 127 is not; an all-zero mask is empty.
    """
    if mask.dtype == bool:
        return mask
    return mask > int(mask.max()) // 2


@dataclass(frozen=True, eq=False)
class Counts:
    """Integer tables of one map and one mask of the same size; each is computed on first use."""

    prediction: Map
    mask: Lesion
    known_blocks: dict = field(default_factory=dict, repr=False)

    @cached_property
    def codes(self) -> UInt16[np.ndarray, 'height width']:
        """The level, plus 256 on the lesion."""
        return self.prediction + (self.mask.view(np.uint8).astype(np.uint16) << 8)

    @cached_property
    def index_sums(self) -> tuple[int, int]:
        """The sums of 0-based row indices and of 0-based column indices over the lesion."""
        # float32 products are exact here: no row or column has 2^24 pixels.
        mask = self.mask.astype(np.float32)
        height, width = mask.shape
        by_row = mask @ np.ones(width, np.float32)
        by_column = np.ones(height, np.float32) @ mask
        return int(by_row.astype(np.float64) @ np.arange(height)), int(by_column.astype(np.float64) @ np.arange(width))

    def blocks(self, rows: int, columns: int) -> Int64[np.ndarray, '2 2 2 256']:
        """Returns the pixels by (lower, right, lesion, level), the image cut after `rows` and `columns`."""
        if (rows, columns) not in self.known_blocks:
            parts = [
                np.bincount(part.ravel(), minlength=512)
                for half in (self.codes[:rows], self.codes[rows:])
                for part in (half[:, :columns], half[:, columns:])
            ]
            self.known_blocks[rows, columns] = np.stack(parts).reshape(2, 2, 2, 256)
        return self.known_blocks[rows, columns]

    @cached_property
    def centroid(self) -> tuple[int, int]:
        """Rows above and columns left of the block border: 0-based mean indices, halves to even, plus one."""
        if not self.foreground:
            return 0, 0
        rows, columns = self.index_sums
        return round(rows / self.foreground) + 1, round(columns / self.foreground) + 1

    @cached_property
    def levels(self) -> Int64[np.ndarray, '2 256']:
        """The pixels by (lesion, level)."""
        # The blocks at the centroid are needed anyway and cost what one histogram costs.
        return self.blocks(*self.centroid).sum(axis=(0, 1))

    @cached_property
    def pixels(self) -> int:
        """Pixels of the image."""
        return self.mask.size

    @cached_property
    def foreground(self) -> int:
        """Pixels of the lesion."""
        return int(np.count_nonzero(self.mask))

    @cached_property
    def offset_and_span(self) -> tuple[int, int]:
        """(o, R) of the min-max stretch P = (level - o) / R; a constant map is not stretched: (0, 255)."""
        present = np.flatnonzero(self.levels.sum(axis=0))
        low, high = int(present[0]), int(present[-1])
        return (low, high - low) if high > low else (0, 255)

    @cached_property
    def stretched(self) -> Int64[np.ndarray, '256']:
        """For each level, level - o clipped to [0, R]."""
        offset, span = self.offset_and_span
        return np.clip(LEVELS - offset, 0, span)

    @cached_property
    def weighted_errors(self) -> tuple[float, float]:
        """The error sums of the weighted F-measure over lesion and background; the mask must not be empty."""
        error = self.stretched / self.offset_and_span[1]
        return weighted_errors(np.concatenate([error, 1 - error])[self.codes], self.mask)
