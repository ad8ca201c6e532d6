"""Files to uint8 arrays and back: the one table of how files are read.

| file | as an image | as a mask | as a map | message |
|---|---|---|---|---|
| 1 bit | 0 and 255 | 0 and 255 | 0 and 255 | |
| grey of 2, 4 or 8 bits | levels | levels | levels | |
| above 8 bits, values to 255 | levels of 8 bits | levels or class indices | levels of 8 bits | images, maps: a note |
| 16 bits, nothing above 2ⁿ−1 | 2ⁿ−1 is white | two levels, or refused | 65535 is white | images: a note |
| 16 bits | 65535 is white | 65535 is white | 65535 is white | |
| floats, 0 to 1 | 1 is white | 1 is white | 1 is white | images, maps: a note |
| negative, NaN, above 65535 | refused without `data.window` | refused | refused | |
| colour | RGB | `data.colors` | luma | masks: the colours found; maps: a note |
| black and one colour | RGB | 0 and 255 | 0 and 255 | a note |
| 0 and one other level | levels | 0 and 255 | 0 and 255 | a note, unless 255 (masks: or 1) |
| palette of greys | its greys | its greys | its greys | |
| palette of colours | its colours | class indices | 0 and 255, or luma | luma: a note |
| alpha | ignored | ignored; if the colour is constant, alpha is the mask | as of a mask | a note, if alpha is used |
| file says that 0 is white | inverted | inverted; refused for class indices | inverted | |
| colour tagged as grey | RGB | as colour | as colour | |
| turned by EXIF | upright | upright | upright | a warning, if only one of image and mask is turned |
| several pages or frames | refused | refused | refused | |
| DICOM, NIfTI | above 8 bits: needs `data.window` | stored numbers | stored numbers | |
| `.npy` | as above, by its type | as above | as above; [H, W, C] of several classes | not in datasets |

Decisions that only a whole set can tell (which value is white, whether there is one level or one colour) are in its
Reading (see reading.py and decisions.py). A file may hold several images, a volume's slices or frames: the address of
one is a path below its file, `ct.nii.gz/012`.
"""

import os
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
from jaxtyping import Shaped, UInt8

from m2snet_jax.errors import InputError
from m2snet_jax.images import dicom, nifti, raster
from m2snet_jax.images.depth import levels_of
from m2snet_jax.images.file_samples import Samples
from m2snet_jax.images.masks import map_levels, mask_levels
from m2snet_jax.images.reading import UNDECIDED, Reading
from m2snet_jax.images.windows import windowed
from m2snet_jax.storage import write

_READERS = {ending: reader for reader in (dicom, nifti) for ending in reader.ENDINGS}
_ORDINARY = ('.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff', '.webp', '.gif', '.ppm', '.pgm', '.jp2', '.npy')
CLINICAL_ENDINGS = tuple(_READERS)


def split_name(path: str | Path) -> tuple[str, str]:
    """Returns the name of a file without its ending, and the ending in lower case: ('ct', '.nii.gz').

    A number is no ending: DICOM files are often named by a UID, 1.2.840.10008.
    """
    stem, ending = os.path.splitext(Path(path).name)
    if ending[1:].isdecimal():
        return stem + ending, ''
    if ending.lower() == '.gz':
        stem, inner = os.path.splitext(stem)
        ending = inner + ending
    return stem, ending.lower()


def locate(path: str | Path) -> tuple[Path, int | None]:
    """Returns (file, number) of an image's address: ('ct.nii.gz', 12) of 'ct.nii.gz/012', (file, None) of a file."""
    path = Path(path)
    inside = path.name.isdecimal() and not path.exists() and reader_of(path.parent) is not None
    return (path.parent, int(path.name)) if inside else (path, None)


def reader_of(path: str | Path) -> ModuleType | None:
    """Returns the module that reads the file of an address: `dicom`, `nifti`, or None for ordinary images.

    DICOM is recognised by its content where its ending is of no other format.
    """
    path = Path(path)
    for file in (path, path.parent) if path.name.isdecimal() else (path,):
        ending = split_name(file)[1]
        if ending in _READERS:
            return _READERS[ending]
        if ending not in _ORDINARY and dicom.is_dicom(file):
            return dicom
    return None


def addresses(path: str | Path) -> list[Path]:
    """Returns the addresses of all images in a file: the file itself where it holds one, else FILE/000, FILE/001 ….

    Raises:
        InputError: a DICOM or NIfTI file cannot be read.
    """
    path, reader = Path(path), reader_of(path)
    count = reader.count(path) if reader else 1
    return [path] if count == 1 and reader is not nifti else [path / f'{number:03d}' for number in range(count)]


def read_image(
    path: str | Path, window: str | None = None, reading: Reading = UNDECIDED
) -> UInt8[np.ndarray, 'height width 3']:
    """Reads any image file as RGB: grey, palette and 1-bit files get three channels, alpha is dropped.

    Args:
        path: a file, or the address of one of its images.
        window: the range of files of more than 8 bits, as `data.window`.
        reading: of the set of the image, by default of the image alone.

    Raises:
        InputError: the file is missing, unreadable, truncated, or has more than 8 bits and no range can be given.
    """
    return load_image(path, window, reading)[0]


def load_image(
    path: str | Path, window: str | None = None, reading: Reading = UNDECIDED
) -> tuple[UInt8[np.ndarray, 'height width 3'], bool]:
    """Returns an image as `read_image` does, and whether EXIF data turned it."""
    if reader := reader_of(path):
        return reader.read_image(*_one(path, reader), window), False
    samples = raster.decode(path)
    values = samples.values
    if samples.palette is not None:
        return samples.palette[values], samples.turned
    if values.ndim == 3 and values.shape[2] != 3:
        raise InputError(f'{path}: has {values.shape[2]} channels; give grey or RGB')
    if samples.is_deep:
        if window is not None:
            values = windowed(values, window, None, path)
        else:
            values = levels_of(values, reading.white(values.max(), values.dtype.kind == 'f'), path)
    if samples.inverted:
        values = 255 - values
    return (np.repeat(values[:, :, None], 3, axis=2) if values.ndim == 2 else values), samples.turned


def read_mask(path: str | Path, reading: Reading = UNDECIDED, classes: int = 1) -> UInt8[np.ndarray, 'height width']:
    """Reads any mask file as levels 0…255, or as class indices; see the table above.

    Args:
        path: a file, or the address of one of its images.
        reading: of the set of the mask, by default of the mask alone.
        classes: of the set; levels are not checked against them.

    Raises:
        InputError: the file is missing, unreadable, truncated, or holds neither levels nor indices.
    """
    return load_mask(path, reading, classes)[0]


def load_mask(
    path: str | Path, reading: Reading = UNDECIDED, classes: int = 1
) -> tuple[UInt8[np.ndarray, 'height width'], bool]:
    """Returns a mask as `read_mask` does, and whether EXIF data turned it."""
    samples = decode(path)
    return mask_levels(samples, reading, classes, path), samples.turned


def read_map(
    path: str | Path, reading: Reading = UNDECIDED, classes: int = 1
) -> Shaped[np.ndarray, 'height width *classes']:
    """Reads any file of a probability map as levels 0…255.

    Args:
        path: a file, or the address of one of its images.
        reading: of the set of the map, by default of the map alone.
        classes: that the file holds; of several, [H, W, C] is returned.

    Raises:
        InputError: the file is missing, unreadable, truncated, or holds no map.
    """
    if reading.clinical_only and reader_of(path) is None:
        reading = Reading(reading.integers, reading.floats)
    return map_levels(decode(path), reading, classes, path)


def decode(path: str | Path) -> Samples:
    """Returns the samples of a mask or map file; DICOM and NIfTI as the numbers that they store."""
    if reader := reader_of(path):
        return reader.read_samples(*_one(path, reader))
    return raster.decode(path)


def write_png(path: str | Path, array: UInt8[np.ndarray, 'height width *channels']) -> None:
    """Writes grey or RGB as a PNG file, whole or not at all."""
    write(path, encode_png(array))


def encode_png(array: UInt8[np.ndarray, 'height width *channels']) -> bytes:
    """Returns grey or RGB as the bytes of a PNG file."""
    if array.dtype != np.uint8:
        raise TypeError(f'a PNG of uint8 is written, not of {array.dtype}')
    return cv2.imencode('.png', array if array.ndim == 2 else array[:, :, ::-1])[1].tobytes()


def _one(path, reader):
    """Returns (file, number) of an address that names one image."""
    file, number = locate(path)
    count = reader.count(file)
    if (number is None and count > 1) or (number or 0) >= count:
        raise InputError(f'{path}: {file.name} holds {count} images; name one, as {file / f"{count // 2:03d}"}')
    return file, number or 0
