"""NIfTI volumes: axial slices in, a mask in the same geometry out.

A slice is in radiological orientation, however the voxels are stored: the patient's front on top, the patient's right
on the left. The file's affine gives the axes; an oblique one counts as the nearest of the three. Slices are numbered
from 0 along the stored axis that runs from foot to head. nibabel is installed by the extra `clinic`.
"""
# pyright: reportMissingImports=false

import functools
import gzip
import threading
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Num, UInt8

from m2snet_jax.errors import InputError, reading
from m2snet_jax.images.windows import Window, windowed

ENDINGS = ('.nii', '.nii.gz')
_LOADING = threading.Lock()


class Volume(NamedTuple):
    """The voxels of a file as stored, their scale, and the window that the file names."""

    axial: Num[np.ndarray, 'slices height width']
    slope: float
    intercept: float
    window: Window | None


def count(path: str | Path) -> int:
    """Returns the number of axial slices of a file, from its header."""
    image = _opened(path)
    return int(image.shape[_axes(image, path)[0][0]])


def read_image(path: str | Path, number: int, window: str | None) -> UInt8[np.ndarray, 'height width 3']:
    """Reads one axial slice; types other than uint8 need a window (see windows.py).

    Raises:
        InputError: the file is missing, damaged, not a volume of three dimensions, in colour, or needs a window.
    """
    volume = _volume(path)
    if volume.axial.dtype == np.uint8 and (volume.slope, volume.intercept) == (1, 0):
        levels = volume.axial[number]
    else:
        levels = windowed(read_numbers(path, number), window, volume.window, path)
    return np.repeat(levels[:, :, None], 3, axis=2)


def read_numbers(path: str | Path, number: int) -> Num[np.ndarray, 'height width']:
    """Reads one axial slice as numbers, scaled as the header says."""
    volume = _volume(path)
    stored = volume.axial[number]
    return stored if (volume.slope, volume.intercept) == (1, 0) else stored * volume.slope + volume.intercept


def check_same_grid(path: str | Path, other: str | Path) -> None:
    """Raises InputError unless two volumes have equal shapes and, to a thousandth, equal affines."""
    image, reference = _opened(path), _opened(other)
    if image.shape != reference.shape:
        found, expected = ('x'.join(map(str, one.shape)) for one in (image, reference))
        raise InputError(f'{path}: {found} voxels, but {other} has {expected}; give both the same grid')
    if not np.allclose(image.affine, reference.affine, rtol=0, atol=1e-3):
        raise InputError(
            f'{path}: lies elsewhere in space than {other} (their affines differ); resample one to the other'
        )


def encode_nifti(path: str | Path, slices: Num[np.ndarray, 'slices height width *classes']) -> bytes:
    """Returns axial slices as the bytes of a .nii.gz with the header and affine of the volume at `path`."""
    source = _opened(path)
    voxels = np.zeros(source.shape + slices.shape[3:], slices.dtype)
    _axial(voxels, _axes(source, path))[:] = slices
    header = source.header.copy()
    header.set_data_dtype(slices.dtype)
    header.set_slope_inter(1, 0)
    header['cal_min'] = header['cal_max'] = 0  # the scanner's range of grey
    # Without an affine the header's own is kept, with the codes of its frame of reference.
    return gzip.compress(type(source)(voxels, None, header).to_bytes(), mtime=0)


def _volume(path: str | Path) -> Volume:
    """Returns the Volume of a file; the last few are cached, since slices are read one after the other."""
    with _LOADING, reading(path, 'NIfTI'):
        return _load(Path(path), Path(path).stat().st_mtime_ns)


@functools.lru_cache(maxsize=4)
def _load(path: Path, modified: int) -> Volume:
    """Reads a file; the time of its modification is part of the cache's key."""
    image = _opened(path)
    axes = _axes(image, path)
    if image.get_data_dtype().kind not in 'iuf':
        raise InputError(f'{path}: holds colours or complex numbers; store one number a voxel')
    with reading(path, 'NIfTI'):
        stored = np.asanyarray(image.dataobj.get_unscaled())
    low, high = float(image.header['cal_min']), float(image.header['cal_max'])
    window = ((low + high) / 2, high - low) if high > low else None
    return Volume(_axial(stored, axes), float(image.dataobj.slope), float(image.dataobj.inter), window)


def _opened(path: str | Path) -> Any:
    """Returns nibabel's image, its voxels still on disk."""
    try:
        import nibabel
    except ImportError:
        raise InputError("NIfTI files need nibabel: pip install 'nibabel>=5.4,<6'") from None
    with reading(path, 'NIfTI'):
        image = nibabel.load(path)
        if isinstance(image, nibabel.Nifti1Image):
            return image
    raise InputError(f'{path}: is no NIfTI file but {type(image).__name__}; convert it')


def _axes(image, path):
    """Returns the voxel axes (foot to head, front to back, right to left) and which of the last two are turned."""
    import nibabel

    if len(image.shape) != 3:
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
