"""Ordinary image files, and arrays of NumPy, as samples.

Pillow reads them; OpenCV colour of 16 bits, which Pillow would cut; tifffile the TIFFs that Pillow does not read or
misreads. A file is recognised by its content, whatever its ending.
"""

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from m2snet_jax.errors import InputError, reading
from m2snet_jax.images import tiff
from m2snet_jax.images.file_samples import LARGEST, Samples, check_size, native, upright

_NUMPY = b'\x93NUMPY'

# What Pillow would warn of is an InputError here.
Image.MAX_IMAGE_PIXELS = LARGEST
warnings.filterwarnings('ignore', module=r'PIL\.')


def decode(path: str | Path) -> Samples:
    """Reads the only image of a file; EXIF rotation is applied.

    Raises:
        InputError: the file is missing, damaged, no image, has several pages or more than `LARGEST` pixels.
    """
    with _reading(path):
        head = _head(path)
        if head.startswith(_NUMPY):
            return _from_array(path)
        try:
            with Image.open(path) as image:
                return _from_pillow(image, path)
        except UnidentifiedImageError:
            if not head.startswith(tiff.MAGIC):
                raise
        return tiff.decode(path)


def deep_kind(path: str | Path) -> str:
    """Returns 'integers' or 'floats' for a file of more than 8 bits, from its header; '' for any other."""
    try:
        with _reading(path):
            if _head(path).startswith(_NUMPY):
                return _kind(np.load(path, mmap_mode='r', allow_pickle=False).dtype)
            try:
                with Image.open(path) as image:
                    if image.mode.startswith('F'):
                        return 'floats'
                    if tiff.has_deep_planes(getattr(image, 'tag_v2', {})):
                        return _kind(tiff.dtype(path))
                    deep = image.mode.startswith('I') or _is_sixteen_bit_colour(image) or _is_signed(image)
                    return 'integers' if deep else ''
            except UnidentifiedImageError:
                return _kind(tiff.dtype(path))
    except InputError:
        return ''


def unreadable(path: str | Path, reason: str, kind: str = 'an image') -> str:
    """Returns in a line what is wrong with a file that cannot be read as `kind`, without its path."""
    try:
        head = _head(path).lstrip()
    except OSError as error:
        return f'cannot be opened ({error.strerror}); make it readable, or leave it out'
    if not head:
        return 'cannot be read, since it is empty; copy it again'
    if head.startswith(b'version https://git-lfs'):
        return 'is a pointer of Git LFS, not the file itself; run git lfs pull where it comes from'
    if head[:15].lower().startswith((b'<!doctype html', b'<html')):
        return 'is a web page, not the file itself; download it again'
    if 'decompression bomb' in reason:  # Pillow's words for a size at which it reads no header
        return f'has more than {LARGEST:,} pixels, which is the limit; reduce it or divide it into tiles'
    return f'cannot be read as {kind} ({reason}); give a whole file, or leave it out'


def _reading(path):
    """Makes every error an InputError that names the file."""
    return reading(path, 'an image', lambda reason: unreadable(path, reason))


def _kind(dtype):
    return '' if dtype in (np.uint8, np.bool_) else 'floats' if dtype.kind == 'f' else 'integers'


def _head(path):
    """Returns the first bytes of a file."""
    with Path(path).open('rb') as file:
        return file.read(512)


def _from_array(path):
    values = np.load(path, mmap_mode='r', allow_pickle=False)
    if values.ndim not in (2, 3) or values.dtype.kind not in 'biuf':
        shape = 'x'.join(map(str, values.shape))
        raise InputError(f'{path}: holds {values.dtype} {shape}; give numbers [H, W] or [H, W, C]')
    channels = values.shape[2] if values.ndim == 3 else 1
    check_size(path, values.shape[1] * channels, values.shape[0])
    return Samples(native(values[..., 0] if values.ndim == 3 and channels == 1 else values))


def _from_pillow(image, path):
    check_size(path, *image.size)
    if (pages := _pages(image)) > 1:
        raise InputError(f'{path}: holds {pages} pages; store one image a file')
    tags: Any = getattr(image, 'tag_v2', {})
    if tiff.has_deep_planes(tags):
        return tiff.decode(path)
    inverted = tags.get(tiff.PHOTOMETRIC) == tiff.WHITE_IS_ZERO
    raw, signed, sixteen_bit_colour = _raw_mode(image), _is_signed(image), _is_sixteen_bit_colour(image)
    orientation = image.getexif().get(tiff.ORIENTATION, 1)  # decodes a PNG, which empties its tiles
    if sixteen_bit_colour:
        samples = Samples(upright(_sixteen_bit_colour(path), orientation))
    else:
        image.load()
        samples = _eight_bit_or_numbers(ImageOps.exif_transpose(image), raw, inverted, signed)
    return dataclasses.replace(samples, turned=orientation not in (0, 1))


def _eight_bit_or_numbers(image, raw, inverted, signed):
    """Returns the Samples of Pillow's image, upright; `raw` is the layout that its file had."""
    if image.mode == '1':
        values = np.uint8(255) * np.asarray(image)
        return Samples(255 - values if inverted else values, inverted=inverted)  # Pillow has inverted it already
    if image.mode == 'L' and signed:
        return Samples(np.asarray(image).view(np.int8).astype(np.int16), inverted=inverted)
    if image.mode == 'L':
        values, unit = np.asarray(image), {'L;2': 85, 'L;4': 17}.get(raw[:3], 1)
        return Samples(255 - values if inverted else values, inverted=inverted, unit=unit)
    if image.mode == 'P':
        indices, palette = np.asarray(image), np.reshape(image.getpalette('RGB'), (-1, 3)).astype(np.uint8)
        palette = np.pad(palette, ((0, 256 - len(palette)), (0, 0)))
        return Samples(indices, palette, _palette_alpha(indices, image.info.get('transparency')))
    if image.mode.startswith(('I', 'F')):
        return Samples(native(np.asarray(image)), inverted=inverted)
    if image.mode in ('LA', 'La'):
        grey, alpha = np.moveaxis(np.asarray(image.convert('LA')), -1, 0)
        return Samples(grey, alpha=alpha)
    if image.mode in ('RGBA', 'RGBa', 'PA'):
        colour = np.asarray(image.convert('RGBA'))
        return Samples(colour[:, :, :3], alpha=colour[:, :, 3])
    return Samples(np.asarray(image.convert('RGB')))


def _pages(image):
    """Returns the number of pages or frames of a file."""
    if image.format == 'MPO':  # a camera's JPEG: smaller versions follow the picture
        return 1
    count = getattr(image, 'n_frames', 1)
    if image.format != 'TIFF' or count == 1:
        return count
    whole = 0
    for number in range(count):
        image.seek(number)
        whole += not image.tag_v2.get(tiff.SUBFILE, 0) & tiff.REDUCED
    image.seek(0)
    return whole


def _raw_mode(image):
    """Returns the layout of the samples in the file, e.g. 'RGB;16B'."""
    if not image.tile:
        return ''
    arguments = image.tile[0][3]
    return arguments if isinstance(arguments, str) else str(arguments[0]) if arguments else ''


def _is_sixteen_bit_colour(image):
    return image.mode.startswith(('RGB', 'LA')) and '16' in _raw_mode(image)


def _is_signed(image):
    return image.mode == 'L' and tiff.SIGNED in np.atleast_1d(getattr(image, 'tag_v2', {}).get(tiff.SAMPLE_FORMAT, 1))


def _sixteen_bit_colour(path):
    """Reads by OpenCV what Pillow would reduce to its upper bytes."""
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
    pixels = cv2.imdecode(np.fromfile(path, np.uint8), flags)
    if pixels is None:
        raise ValueError('damaged')
    return pixels[:, :, ::-1]


def _palette_alpha(indices, transparency):
    """Returns the alpha of each pixel of a palette image, None without."""
    if transparency is None:
        return None
    table = np.full(256, 255, np.uint8)
    if isinstance(transparency, int):
        table[transparency] = 0
    else:
        table[: len(transparency)] = np.frombuffer(transparency, np.uint8)
    return table[indices]


def may_have_colour(path: str | Path) -> bool:
    """Whether a file has colour, a palette or alpha, from its header; True where it cannot be read."""
    try:
        with _reading(path), Image.open(path) as image:
            return image.mode not in ('1', 'L', 'I', 'F') and not image.mode.startswith('I;')
    except InputError:
        return True
