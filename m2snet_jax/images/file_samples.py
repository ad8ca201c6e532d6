"""The samples of one image, as its file holds them, before any decision about their range."""

import dataclasses
from pathlib import Path

import numpy as np
from jaxtyping import Shaped, UInt8

from m2snet_jax.errors import InputError

LARGEST = 178_956_970  # pixels: the size from which Pillow, too, refuses a file


@dataclasses.dataclass(frozen=True)
class Samples:
    """The samples of one image, upright.

    Attributes:
        values: grey [H, W], colour [H, W, 3] or the maps of several classes [H, W, C]; uint8, or an integer or float
            type of more bits. Of a palette its indices. 1 bit is 0 and 255.
        palette: the colours of the indices, None without.
        alpha: None without.
        inverted: whether 0 is white and not black, as a tag of the file says.
        unit: the value here of the stored value 1, above 1 for grey of 2 or 4 bits, which is decoded to 0…255.
        turned: whether EXIF data turned it.
    """

    values: Shaped[np.ndarray, 'height width *channels']
    palette: UInt8[np.ndarray, '256 3'] | None = None
    alpha: UInt8[np.ndarray, 'height width'] | None = None
    inverted: bool = False
    unit: int = 1
    turned: bool = False

    @property
    def is_deep(self) -> bool:
        """Whether the values have more than 8 bits."""
        return self.values.dtype != np.uint8


def check_size(path: str | Path, width: int, height: int) -> None:
    """Raises InputError for an image without pixels, or with more than `LARGEST`."""
    if width < 1 or height < 1:
        raise InputError(f'{path}: has {width}x{height} pixels; give an image')
    if width * height > LARGEST:
        raise InputError(
            f'{path}: has {width}x{height} pixels, {width * height:,}; the limit is {LARGEST:,}: reduce it or divide '
            'it into tiles'
        )


def upright(values: Shaped[np.ndarray, 'h w *channels'], orientation: int) -> Shaped[np.ndarray, 'h2 w2 *channels']:
    """Returns an image turned as EXIF's orientation, 1 to 8, asks."""
    if orientation in (5, 6, 7, 8):
        values = np.swapaxes(values, 0, 1)
    rows = slice(None, None, -1 if orientation in (3, 4, 7, 8) else 1)
    columns = slice(None, None, -1 if orientation in (2, 3, 6, 7) else 1)
    return np.ascontiguousarray(values[rows, columns])


def native(values: Shaped[np.ndarray, '*shape']) -> Shaped[np.ndarray, '*shape']:
    """Returns numbers in this machine's byte order, int8 and float16 as the next larger type, bool as 0 and 255."""
    if values.dtype.kind == 'b':
        return np.uint8(255) * np.asarray(values)
    larger = {np.dtype(np.int8): np.dtype(np.int16), np.dtype(np.float16): np.dtype(np.float32)}
    dtype = values.dtype.newbyteorder('=')
    return np.ascontiguousarray(values, larger.get(dtype, dtype))
