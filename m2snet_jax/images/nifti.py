"""NIfTI volumes: axial slices in, a mask in the same geometry out.

A slice is in radiological orientation, however the voxels are stored: the patient's front on top, the patient's right
on the left. The file's affine gives the axes; an oblique one counts as the nearest of the three. Slices are numbered
from 0 along the stored axis that runs from foot to head. A file of two dimensions is one slice, and further dimensions
of length 1 are left out. nibabel is installed by the extra `clinic`.
"""
# pyright: reportMissingImports=false

import functools
import gzip
import logging
import math
import threading
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Num, UInt8

from m2snet_jax.errors import InputError, reading
from m2snet_jax.images.file_samples import Samples, check_size, native
from m2snet_jax.images.raster import unreadable
from m2snet_jax.images.windows import Window, windowed, windowed_eight_bit

ENDINGS = ('.nii', '.nii.gz')
LARGEST_RATIO = 1100  # of deflate, between what a file unpacks to and its size
_MILLIMETRES = {'mm': 1.0, 'meter': 1000.0, 'micron': 0.001}
_LOADING = threading.Lock()
logging.getLogger('nibabel.global').setLevel(logging.CRITICAL)  # what it corrects in a damaged header


class Volume(NamedTuple):
    """The voxels of a file as stored, their scale, and the window that the file names."""

    axial: Num[np.ndarray, 'slices height width *channels']
    slope: float
    intercept: float
    window: Window | None


def count(path: str | Path) -> int:
    """Returns the number of axial slices of a file, from its header."""
    image = _opened(path)
    axes = _axes(image, path)
    _check_size(image, path)
    return int(_shape(image)[axes[0][0]])


def read_image(path: str | Path, number: int, window: str | None) -> UInt8[np.ndarray, 'height width 3']:
    """Reads one axial slice; uint8 takes a window, other types need one (see windows.py).

    Raises:
        InputError: the file is missing, damaged, not a volume of three dimensions, in colour, or needs a window.
    """
    volume, numbers = _volume(path), _numbers(path, number)
    if numbers.ndim != 2:
        raise InputError(f'{path}: has {numbers.ndim + 1} dimensions; give volumes of 3, each in a file of its own')
    if volume.axial.dtype == np.uint8:
        bounds = volume.intercept, volume.intercept + 255 * volume.slope
        levels = windowed_eight_bit(numbers, bounds, bounds != (0, 255), window, volume.window, path)
    else:
        levels = windowed(numbers, window, volume.window, path)
    return np.repeat(levels[:, :, None], 3, axis=2)


def read_samples(path: str | Path, number: int) -> Samples:
    """Reads one axial slice as numbers, scaled as the header says; of a volume of several maps [H, W, C]."""
    return Samples(native(_numbers(path, number)))


def voxel_size(path: str | Path) -> tuple[tuple[float, float, float] | None, str]:
    """Returns the size of a voxel in mm, between slices, rows and columns as they are read, and a note.

    A header without a unit is read as mm, which the note says. The size is None where the header has none, or where
    its zooms differ from its affine by more than 1 %.
    """
    image = _opened(path)
    order, _ = _axes(image, path)
    zooms = np.array([*image.header.get_zooms(), 1.0, 1.0][:3], float)
    sizes = np.sqrt((image.affine[:3, :3] ** 2).sum(0))
    stored = min(3, len(image.shape))
    if not (np.isfinite(zooms).all() and (zooms > 0).all()):
        return None, f'{path}: the size of a voxel is missing in the header; no mm are given'
    if not np.allclose(zooms[:stored], sizes[:stored], rtol=1e-2):
        return None, f'{path}: zooms and affine of the header give different sizes of a voxel; no mm are given'
    unit = image.header.get_xyzt_units()[0]
    note = f'{path}: the header names no unit of length; read as mm' if unit == 'unknown' else ''
    between, rows, columns = (float(zooms[axis]) * _MILLIMETRES.get(unit, 1.0) for axis in order)
    return (between, rows, columns), note


def check_same_grid(path: str | Path, other: str | Path) -> None:
    """Raises InputError unless two volumes have equal shapes and, to a thousandth, equal affines."""
    shape, reference = (_shape(_opened(one)) for one in (path, other))
    if len(reference) > 3:
        raise InputError(f'{other}: has {len(reference)} dimensions; give volumes of 3, each in a file of its own')
    if shape[:3] != reference[:3]:
        found, expected = ('x'.join(map(str, one)) for one in (shape, reference))
        raise InputError(f'{path}: {found} voxels, but {other} has {expected}; give both the same grid')
    if not np.allclose(_opened(path).affine, _opened(other).affine, rtol=0, atol=1e-3):
        raise InputError(
            f'{path}: lies elsewhere in space than {other} (their affines differ); resample one to the other'
        )


def encode_nifti(path: str | Path, slices: Num[np.ndarray, 'slices height width *classes']) -> bytes:
    """Returns axial slices as the bytes of a .nii.gz with the header and affine of the volume at `path`."""
    source = _opened(path)
    voxels = np.zeros(_shape(source)[:3] + slices.shape[3:], slices.dtype)
    _axial(voxels, _axes(source, path))[:] = slices
    if slices.ndim == 3:
        voxels = voxels.reshape(source.shape)
    header = source.header.copy()
    header.set_data_dtype(slices.dtype)
    header.set_slope_inter(1, 0)
    header['cal_min'] = header['cal_max'] = 0  # the scanner's range of grey
    # Without an affine the header's own is kept, with the codes of its frame of reference.
    return gzip.compress(type(source)(voxels, None, header).to_bytes(), mtime=0)


def _numbers(path: str | Path, number: int) -> Num[np.ndarray, 'height width *channels']:
    """Returns one axial slice, scaled as the header says."""
    volume = _volume(path)
    stored = volume.axial[number]
    return stored if (volume.slope, volume.intercept) == (1, 0) else stored * volume.slope + volume.intercept


def _volume(path: str | Path) -> Volume:
    """Returns the Volume of a file; the last few are cached, since slices are read one after the other."""
    with _LOADING, _reading(path):
        return _load(Path(path), Path(path).stat().st_mtime_ns)


@functools.lru_cache(maxsize=4)
def _load(path: Path, modified: int) -> Volume:
    """Reads a file; the time of its modification is part of the cache's key."""
    image = _opened(path)
    axes = _axes(image, path)
    _check_size(image, path)
    if image.get_data_dtype().kind not in 'iuf':
        raise InputError(f'{path}: holds colours or complex numbers; store one number a voxel')
    with _reading(path):
        stored = np.asanyarray(image.dataobj.get_unscaled()).reshape(_shape(image))
    low, high = float(image.header['cal_min']), float(image.header['cal_max'])
    window = ((low + high) / 2, high - low) if high > low else None
    return Volume(_axial(stored, axes), float(image.dataobj.slope), float(image.dataobj.inter), window)


def _opened(path: str | Path) -> Any:
    """Returns nibabel's image, its voxels still on disk."""
    try:
        import nibabel
    except ImportError:
        raise InputError("NIfTI files need nibabel: pip install 'nibabel>=5.4,<6'") from None
    with _reading(path):
        image = nibabel.load(path)
        if isinstance(image, nibabel.Nifti1Image):
            return image
    raise InputError(f'{path}: is no NIfTI file but {type(image).__name__}; convert it')


def _axes(image, path):
    """Returns the voxel axes (foot to head, front to back, right to left) and which of the last two are turned."""
    import nibabel

    if not 3 <= len(_shape(image)) <= 4:
        raise InputError(f'{path}: has {len(image.shape)} dimensions; give volumes of 3, each in a file of its own')
    orientation = nibabel.io_orientation(image.affine)  # for each voxel axis: the world's axis (R, A, S) and a sign
    if not np.isfinite(orientation).all():
        raise InputError(f'{path}: its affine is singular; correct the header')
    axis_of = {int(world): axis for axis, world in enumerate(orientation[:, 0])}
    signs = orientation[:, 1]
    return (axis_of[2], axis_of[1], axis_of[0]), (signs[axis_of[1]] > 0, signs[axis_of[0]] > 0)


def _axial(voxels, axes):
    """Returns a view [slices, H, W, …] of voxels, by which they can also be written."""
    order, turned = axes
    view = voxels.transpose(*order, *range(3, voxels.ndim))
    rows, columns = (slice(None, None, -1 if turn else 1) for turn in turned)
    return view[:, rows, columns]


def _shape(image):
    """Returns three dimensions, the third 1 of a picture, and those beyond that are not 1."""
    shape = tuple(int(length) for length in image.shape)
    return (*shape[:3], *(1,) * (3 - len(shape)), *(length for length in shape[3:] if length != 1))


def _check_size(image, path):
    """Refuses a header that names more voxels than the file can hold, before memory is taken for them."""
    check_size(path, *_shape(image)[:2])
    size, packed = Path(path).stat().st_size, str(path).lower().endswith('.gz')
    if math.prod(_shape(image)) * image.get_data_dtype().itemsize > size * (LARGEST_RATIO if packed else 1):
        raise InputError(f'{path}: cannot be read as NIfTI (its header names more voxels than it holds); copy it again')


def _reading(path):
    return reading(path, 'NIfTI', lambda reason: unreadable(path, reason, 'NIfTI'))
