"""TIFF files that Pillow does not read or misreads, e.g. colour that is tagged as grey, by tifffile.

tifffile itself decompresses deflate and LZMA; for other compressions it names the package imagecodecs.
"""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from m2snet_jax.errors import InputError
from m2snet_jax.images.file_samples import Samples, check_size, native, upright

MAGIC = (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')
SUBFILE, PHOTOMETRIC, SAMPLE_FORMAT, ORIENTATION = 254, 262, 339, 274  # tags
WHITE_IS_ZERO, SIGNED, REDUCED = 0, 2, 1
_BITS, _CHANNELS, _PLANES, _SEPARATE = 258, 277, 284, 2  # three tags and a value of the last

logging.getLogger('tifffile').setLevel(logging.CRITICAL)  # what it would warn of is an InputError here


def decode(path: str | Path) -> Samples:
    """Reads the only page of a TIFF file; raises an error of any kind where it cannot be read."""
    with tifffile.TiffFile(path) as file:
        page: Any = _page(file, path)
        check_size(path, page.imagewidth, page.imagelength)
        values, tag, axes = page.asarray(), page.tags.get(ORIENTATION), page.axes
        palette = None if page.colormap is None else (page.colormap.T >> 8).astype(np.uint8)
        inverted = page.photometric == WHITE_IS_ZERO
    if axes.startswith('S'):  # one plane a sample
        values = np.moveaxis(values, 0, -1)
    channels = values.shape[2] if values.ndim == 3 else 1
    if values.ndim not in (2, 3) or channels > 4 or values.dtype.kind not in 'biuf':
        raise InputError(f'{path}: holds {values.dtype} samples in the order {axes}; store grey or RGB')
    orientation = 1 if tag is None else tag.value
    values, alpha = upright(native(values), orientation), None
    if channels in (2, 4):
        alpha = values[:, :, -1] if values.dtype == np.uint8 else None
        values = values[:, :, 0] if channels == 2 else values[:, :, :3]
    if palette is not None:
        palette = np.pad(palette, ((0, 256 - len(palette)), (0, 0)))
    return Samples(values, palette, alpha, inverted and channels < 3, turned=orientation not in (0, 1))


def dtype(path: str | Path) -> np.dtype:
    """Returns the type of the samples of the only page of a TIFF file, from its header."""
    with tifffile.TiffFile(path) as file:
        return np.dtype(_page(file, path).dtype)


def has_deep_planes(tags: Any) -> bool:
    """Returns whether the tags of a file, {number: value}, say that it has a plane for each channel, of over 8 bits.

    Pillow takes each of their bytes for a sample.
    """
    return tags.get(_PLANES) == _SEPARATE and tags.get(_CHANNELS, 1) > 1 and np.max(tags.get(_BITS, 1)) > 8


def _page(file, path):
    """Returns the only page of a file that is no reduced version of another."""
    pages = [page for page in file.pages if not page.is_reduced]
    if len(pages) != 1:
        raise InputError(f'{path}: holds {len(pages)} pages; store one image a file')
    return pages[0]
