"""DICOM files: images and their frames.

pydicom and the decoders are installed by the extra `clinic`.
"""
# pyright: reportMissingImports=false, reportPrivateImportUsage=false

import functools
import struct
import threading
import warnings
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from m2snet_jax.errors import InputError, reading
from m2snet_jax.images.file_samples import Samples, check_size, native
from m2snet_jax.images.raster import unreadable
from m2snet_jax.images.windows import windowed, windowed_eight_bit

ENDINGS = ('.dcm',)
warnings.filterwarnings('ignore', module=r'pydicom\.')  # of values that break the standard and are not needed
_LOADING = threading.Lock()
_DECODERS = 'pylibjpeg, pylibjpeg-openjpeg and python-gdcm decode most'
_FIRST = (0x0000, 0x0001, 0x0005, 0x0008, 0x0012, 0x0013, 0x0014, 0x0016, 0x0018)  # elements that a file may begin with


def is_dicom(path: str | Path) -> bool:
    """Whether a file is DICOM by its content: it has the preamble, or begins with an element of group 2 or 8."""
    try:
        with Path(path).open('rb') as file:
            head = file.read(132)
    except OSError:
        return False
    if len(head) < 12 or head[128:] == b'DICM':
        return head[128:] == b'DICM'
    group, element, length = struct.unpack('<HHI', head[:8])
    explicit = head[4:6].isalpha() and head[4:6].isupper()
    return group in (2, 8) and element in _FIRST and (explicit or (length % 2 == 0 and length <= 256))


def count(path: str | Path) -> int:
    """Returns the number of frames of a file, 1 for a single image, from its header."""
    header = read_header(path)
    with _reading(path):
        frames = int(header.get('NumberOfFrames') or 1)
    if frames < 1 or frames > Path(path).stat().st_size:
        raise InputError(f'{path}: cannot be read as DICOM (its header names {frames} frames); copy it again')
    return frames


def read_image(path: str | Path, number: int, window: str | None) -> UInt8[np.ndarray, 'height width 3']:
    """Reads one frame.

    Grey is rescaled (or mapped by the modality table), e.g. to Hounsfield units. More than 8 bits need a window, up to
    8 bits take one (see windows.py); colour of more bits is cut to 8. YBR and palettes become RGB, MONOCHROME1 is
    inverted, overlays are left out.

    Raises:
        InputError: the file is missing, damaged, not an image or a segmentation, compressed in a way that no installed
            decoder reads, or needs a window.
    """
    header, samples = _frame(path, number)
    with _reading(path):
        from pydicom.pixels.processing import apply_color_lut, apply_modality_lut

        kind = header.PhotometricInterpretation
        if kind == 'PALETTE COLOR':
            samples = apply_color_lut(samples, header)
            return (samples >> 8).astype(np.uint8) if samples.dtype == np.uint16 else samples
        if samples.ndim == 3:
            levels = np.rint(samples * (255 / (2**header.BitsStored - 1))).astype(np.uint8)
        else:
            about = about_frame(header, number, 'PixelValueTransformationSequence')
            numbers, own = apply_modality_lut(samples, about), _own_window(header, number)
            if header.BitsStored <= 8 and samples.dtype.kind == 'u':
                whole = apply_modality_lut(np.arange(2**header.BitsStored, dtype=samples.dtype), about)
                rescaled = not np.array_equal(whole, np.arange(len(whole)))
                bounds = float(whole.min()), float(whole.max())
                levels = windowed_eight_bit(numbers, bounds, rescaled, window, own, path)
            else:
                levels = windowed(numbers, window, own, path)
    if kind == 'MONOCHROME1':
        levels = 255 - levels
    return levels if levels.ndim == 3 else np.repeat(levels[:, :, None], 3, axis=2)


def read_samples(path: str | Path, number: int) -> Samples:
    """Reads one frame of a file, such as a mask, as stored, without its rescaling."""
    header, values = _frame(path, number)
    return Samples(native(values), inverted=header.PhotometricInterpretation == 'MONOCHROME1')


def study_of(path: str | Path) -> str:
    """Returns the UID of a file's study, the examination of one patient; '' without."""
    header = read_header(path)
    with _reading(path):
        return str(header.get('StudyInstanceUID') or '')


def series_of(path: str | Path) -> Hashable | None:
    """Returns a key that is equal for the images of one segmentation, None where there can be none.

    These are the files of one series with the same grid in the same frame of reference. A file of several frames, or
    without a position, has a key of its own; one with several frames and no frame of reference has None.
    """
    header = read_header(path)
    with _reading(path):
        frames, frame_of_reference = int(header.get('NumberOfFrames') or 1), header.get('FrameOfReferenceUID')
        if frames > 1 and frame_of_reference is None:
            return None
        alone = header.get('SOPInstanceUID') if frames > 1 or 'ImagePositionPatient' not in header else ''
        directions = tuple(np.round(np.asarray(header.get('ImageOrientationPatient') or (), float), 3))
        grid = header.Rows, header.Columns, directions
        return str(header.get('SeriesInstanceUID')), str(frame_of_reference), grid, str(alone)


def read_header(path: str | Path, pixels: bool = False) -> Any:
    """Returns a file's dataset, without its pixels unless `pixels`; refuses what is not an image."""
    try:
        import pydicom
    except ImportError:
        raise InputError("DICOM files need pydicom: pip install 'pydicom>=3.0.2,<4'") from None
    with _reading(path):
        header = pydicom.dcmread(path, stop_before_pixels=not pixels, force=is_dicom(path))
        if 'TransferSyntaxUID' not in header.file_meta:  # without preamble: as its elements are written
            header.file_meta.TransferSyntaxUID = _syntax(*header.original_encoding)
        kind = header.get('SOPClassUID')
        modality = header.get('Modality')
    if 'Rows' not in header:
        raise InputError(f'{path}: holds no image ({kind.name if kind else "of unknown kind"}); leave it out')
    if modality == 'SEG':
        raise InputError(f'{path}: holds a segmentation, no image; leave it out, or convert it where it is a mask')
    with _reading(path):
        check_size(path, header.Columns, header.Rows)
    return header


def _syntax(implicit, little):
    """Returns the transfer syntax of a file that names none."""
    from pydicom import uid

    if implicit:
        return uid.ImplicitVRLittleEndian
    return uid.ExplicitVRLittleEndian if little else uid.ExplicitVRBigEndian


def _frame(path, number):
    """Returns a file and one of its frames as stored, [H, W] or RGB [H, W, 3], without decoding the others."""
    with _LOADING, _reading(path):
        dataset = _load(Path(path), Path(path).stat().st_mtime_ns)
    with _reading(path):
        from pydicom.pixels.utils import pixel_array

        return dataset, pixel_array(dataset, index=number)


@functools.lru_cache(maxsize=4)
def _load(path, modified):
    """Reads a file; the last few are cached, by the time of their modification, since frames are read in turn."""
    return read_header(path, pixels=True)


def _reading(path):
    """Makes whatever pydicom and the decoders raise an InputError that names the file, and the missing decoders."""
    return reading(path, 'DICOM', lambda reason: _missing_decoder(reason) or unreadable(path, reason, 'DICOM'))


def _missing_decoder(reason):
    # decode, decompress: pydicom's message names the compression and the plugins that were tried
    return f'{reason}; {_DECODERS}: pip install what is missing' if 'Unable to de' in reason else None


def about_frame(header: Any, number: int, sequence: str) -> Any:
    """Returns the dataset that has a sequence's values for one frame: its own, that of all frames, or the header."""
    for groups, index in (('PerFrameFunctionalGroupsSequence', number), ('SharedFunctionalGroupsSequence', 0)):
        if groups in header and sequence in header[groups][index]:
            return header[groups][index][sequence][0]
    return header


def _own_window(header, number):
    """Returns the first window of a frame, (centre, width), None without."""
    about = about_frame(header, number, 'FrameVOILUTSequence')
    centre, width = (np.atleast_1d(about.get(word)) for word in ('WindowCenter', 'WindowWidth'))
    return None if None in (centre[0], width[0]) else (float(centre[0]), float(width[0]))
