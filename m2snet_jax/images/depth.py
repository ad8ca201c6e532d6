"""From samples of more than 8 bits to levels: which value is white."""

from pathlib import Path

import numpy as np
from jaxtyping import Shaped, UInt8

from m2snet_jax.errors import InputError

UNIT = 1.0 + 1e-6  # floats up to here are shares; rounding passes 1 a little
DEEPEST = 65535


def white_of(highest: float, floats: bool) -> float:
    """Returns the value that is white in files of more than 8 bits whose highest value is `highest`.

    1 for floats up to 1; 255 where nothing is above it; else the first of 511, 1023, … 65535 that nothing is above.
    """
    if floats and highest <= UNIT:
        return 1.0
    return next((2.0**bits - 1 for bits in range(8, 16) if highest < 2**bits), float(DEEPEST))


def levels_of(values: Shaped[np.ndarray, '*shape'], white: float, path: str | Path) -> UInt8[np.ndarray, '*shape']:
    """Returns values from 0 (black) to `white` as levels 0…255, to the nearest.

    Raises:
        InputError: a value is not finite, negative or above `white`; `path` is named.
    """
    check_positive(values, path)
    highest = values.max()
    if highest > max(white, UNIT):
        where = 'the highest of 16 bits' if white == DEEPEST else 'white in the files that it is read with'
        raise InputError(
            f'{path}: holds values up to {highest:g}, above {white:g}, {where}; say what is shown by '
            '--config.data.window=CENTRE,WIDTH, or convert it to 8 or 16 bits'
        )
    return np.rint(np.minimum(np.asarray(values, np.float64) * (255 / white), 255)).astype(np.uint8)


def check_positive(values: Shaped[np.ndarray, '*shape'], path: str | Path) -> None:
    """Raises InputError for values that are not finite, or negative."""
    if not np.isfinite(values).all():
        raise InputError(f'{path}: holds NaN or infinity; correct it')
    if values.min() < 0:
        raise InputError(
            f'{path}: holds negative values, down to {values.min():g}; convert it to 8 or 16 bits, or say what of an '
            'image is shown by --config.data.window=CENTRE,WIDTH'
        )
