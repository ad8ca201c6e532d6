"""Image files: the only module that reads pixels from disk.

Images become 8-bit RGB, masks 8-bit levels. 16-bit files become 8-bit by ÷257, those of scanners by a named window,
never by stretching each image to its own range, and EXIF rotation is applied to both. A file may hold several images,
a volume's slices or frames: the address of one is a path below its file, `ct.nii.gz/012`.
"""

import os
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from m2snet_jax.errors import InputError
from m2snet_jax.images import dicom, nifti
from m2snet_jax.storage import write

_READERS = {ending: reader for reader in (dicom, nifti) for ending in reader.ENDINGS}
CLINICAL_ENDINGS = tuple(_READERS)


def split_name(path: str | Path) -> tuple[str, str]:
    """Returns the name of a file without its ending, and the ending in lower case: ('ct', '.nii.gz')."""
    stem, ending = os.path.splitext(Path(path).name)
    if ending.lower() == '.gz':
        stem, inner = os.path.splitext(stem)
        ending = inner + ending
    return stem, ending.lower()


def locate(path: str | Path) -> tuple[Path, int | None]:
    """Returns (file, number) of an image's address: ('ct.nii.gz', 12) of 'ct.nii.gz/012', (file, None) of a file."""
    path = Path(path)
    inside = split_name(path.parent)[1] in _READERS and path.name.isdigit()
    return (path.parent, int(path.name)) if inside else (path, None)


def reader_of(path: str | Path) -> ModuleType | None:
    """Returns the module that reads the file of an address: `dicom`, `nifti`, or None for ordinary images."""
    return _READERS.get(split_name(locate(path)[0])[1])


def addresses(path: str | Path) -> list[Path]:
    """Returns the addresses of all images in a file: the file itself where it holds one, else FILE/000, FILE/001 ….

    Raises:
        InputError: a DICOM or NIfTI file cannot be read.
    """
    path, reader = Path(path), reader_of(path)
    count = reader.count(path) if reader else 1
    return [path] if count == 1 and reader is not nifti else [path / f'{number:03d}' for number in range(count)]


def read_image(path: str | Path, window: str | None = None) -> UInt8[np.ndarray, 'height width 3']:
    """Reads any image file as RGB: grey, palette and 1-bit files get three channels, alpha is dropped.

    Args:
        path: a file, or the address of one of its images.
        window: the range of DICOM and NIfTI files of more than 8 bits, as `data.window`.

    Raises:
        InputError: the file is missing, unreadable, truncated, or holds no 8- or 16-bit image.
    """
    if reader := reader_of(path):
        return reader.read_image(*_one(path, reader), window)
    with _opened(path) as image:
        if _holds_numbers(image):
            levels = _eight_bit(_whole(np.asarray(image), path), path)
            return np.repeat(levels[:, :, None], 3, axis=2)
        if 'transparency' in image.info:  # else Pillow would warn, or blend some palettes
            image = image.convert('RGBA')
        return np.asarray(image.convert('RGB'))


def read_mask(path: str | Path) -> UInt8[np.ndarray, 'height width']:
    """Reads any mask file as the levels that it stores.

    - 1-bit: 0 and 255.
    - Palette: the greys where every entry is grey (tools that shrink files write such palettes, in any order), else
      the indices, which are classes.
    - Colour: the luma of Pillow's mode 'L', which is the common value where the channels agree; alpha is dropped.
    - 16 bits and more: kept when no value is above 255, else ÷257.
    - DICOM, NIfTI: the stored numbers, as for 16 bits.

    Raises:
        InputError: as for `read_image`.
    """
    if reader := reader_of(path):
        numbers = _whole(reader.read_numbers(*_one(path, reader)), path)
        return numbers.astype(np.uint8) if numbers.max() <= 255 else _eight_bit(numbers, path)
    with _opened(path) as image:
        if _holds_numbers(image):
            numbers = _whole(np.asarray(image), path)
            return numbers.astype(np.uint8) if numbers.max() <= 255 else _eight_bit(numbers, path)
        if image.mode == 'P' and not _has_grey_palette(image):
            return np.asarray(image)
        if 'transparency' in image.info:
            image = image.convert('RGBA')
        return np.asarray(image.convert('L'))


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


@contextmanager
def _opened(path):
    """Opens, loads and turns an image; whatever goes wrong inside is an InputError that names the file."""
    try:
        with Image.open(path) as image:
            pages = getattr(image, 'n_frames', 1) if image.format == 'TIFF' else 1
            if pages > 1:
                raise InputError(f'{path}: holds {pages} pages; store one image a file')
            sixteen_bit_colour = image.mode.startswith(('RGB', 'LA')) and '16' in _raw_mode(image)
            image.load()
            turned = ImageOps.exif_transpose(_from_sixteen_bit_colour(image, path) if sixteen_bit_colour else image)
            yield turned
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f'{path}: no such file') from None
    except Exception as error:  # Pillow raises nearly anything on a damaged file
        reason = ' '.join(str(error).split())
        raise InputError(f'{path}: cannot be read as an image ({reason}); replace or remove it') from None


def _raw_mode(image):
    """Returns the layout of the samples in the file, e.g. 'RGB;16B'."""
    if not image.tile:
        return ''
    arguments = image.tile[0][3]
    return arguments if isinstance(arguments, str) else str(arguments[0]) if arguments else ''


def _from_sixteen_bit_colour(image, path):
    """Reads by OpenCV what Pillow would reduce to its upper bytes."""
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
    pixels = cv2.imdecode(np.fromfile(path, np.uint8), flags)
    if pixels is None:
        raise InputError(f'{path}: cannot be read as an image; replace or remove it')
    colour = Image.fromarray(_eight_bit(pixels.astype(np.int64), path)[:, :, ::-1])
    colour.getexif().update(image.getexif())
    return colour


def _holds_numbers(image):
    """Whether Pillow holds the samples as integers or floats of more than 8 bits."""
    return image.mode.startswith(('I', 'F'))


def _whole(samples, path):
    """Returns numbers as int64; refuses fractions and negative values."""
    if not np.isfinite(samples).all() or (samples != np.floor(samples)).any() or samples.min() < 0:
        raise InputError(f'{path}: holds fractions or negative values; convert it to 8 or 16 bits')
    return samples.astype(np.int64)


def _eight_bit(numbers, path):
    """Returns 0…65535 as uint8 0…255: ÷257, to the nearest."""
    if numbers.max() > 65535:
        raise InputError(f'{path}: holds values up to {numbers.max()}; convert it to 8 or 16 bits')
    return ((numbers + 128) // 257).astype(np.uint8)


def _has_grey_palette(image):
    """Whether every entry of the palette, in use or not, is a grey."""
    palette = np.reshape(image.getpalette('RGB'), (-1, 3))
    return bool((palette == palette[:, :1]).all())
