"""The size of a pixel in mm, where the file of an image has it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from m2snet_jax.errors import reading
from m2snet_jax.images import dicom, nifti
from m2snet_jax.images.formats import locate, reader_of

UNEQUAL = 0.01, 0.02  # distances of slices differ by more than this share and these mm
_CENTIMETRES = 3  # of Physical Units X and Y Direction


class Region(NamedTuple):
    """A rectangle of an ultrasound picture, in pixels with both ends included, and its spacing in mm."""

    left: float
    top: float
    right: float
    bottom: float
    size: tuple[float, float]


class Spacing(NamedTuple):
    """Distances between the centres of neighbouring pixels in mm.

    Attributes:
        size: between rows and between columns; None where it is not known, or differs between regions.
        between_slices: between the slices of a volume.
        regions: of an ultrasound picture that are in cm.
        note: what a reader of a measurement should know, '' without.
    """

    size: tuple[float, float] | None = None
    between_slices: float | None = None
    regions: tuple[Region, ...] = ()
    note: str = ''

    def at(self, x: float, y: float) -> tuple[float, float] | None:
        """Returns the spacing between rows and columns at a position in pixels, None where there is none.

        Where regions overlap, the first one counts.
        """
        for region in self.regions:
            if region.left - 0.5 <= x <= region.right + 0.5 and region.top - 0.5 <= y <= region.bottom + 0.5:
                return region.size
        return self.size


UNKNOWN = Spacing()


def read_spacing(path: str | Path) -> Spacing:
    """Returns the spacing of a DICOM or NIfTI file, or of the address of one of its images; UNKNOWN of other files.

    DICOM: Pixel Spacing, else Imager Pixel Spacing, else the regions of an ultrasound picture.

    Raises:
        InputError: the file cannot be read.
    """
    reader = reader_of(path)
    if reader is None:
        return UNKNOWN
    file, number = locate(path)
    if reader is nifti:
        size, note = nifti.voxel_size(file)
        return Spacing(note=note) if size is None else Spacing(size[1:], size[0], note=note)
    header = dicom.read_header(file)
    about = dicom.about_frame(header, number or 0, 'PixelMeasuresSequence')
    if size := _size(about.get('PixelSpacing')) or _size(header.get('PixelSpacing')):
        return Spacing(size)
    if size := _size(header.get('ImagerPixelSpacing')):
        return Spacing(size, note=f'{file}: mm are those of the detector (Imager Pixel Spacing), without magnification')
    return Spacing(regions=tuple(_regions(header)))


def _size(values: Any) -> tuple[float, float] | None:
    """Returns two values as floats; None where they are missing or no positive numbers."""
    sizes = [] if values is None else np.asarray(values, float).ravel().tolist()
    return (sizes[0], sizes[1]) if len(sizes) == 2 and all(0 < one < float('inf') for one in sizes) else None


def _regions(header: Any) -> list[Region]:
    """Returns the regions of an ultrasound picture with both directions in cm."""
    found = []
    for item in header.get('SequenceOfUltrasoundRegions') or ():
        units = item.get('PhysicalUnitsXDirection'), item.get('PhysicalUnitsYDirection')
        deltas = item.get('PhysicalDeltaY'), item.get('PhysicalDeltaX')
        edges = [item.get(f'RegionLocation{edge}') for edge in ('MinX0', 'MinY0', 'MaxX1', 'MaxY1')]
        if units != (_CENTIMETRES, _CENTIMETRES) or None in deltas or None in edges:
            continue
        size = _size([10 * abs(float(delta)) for delta in deltas])
        if size is not None:
            left, top, right, bottom = map(float, edges)
            found.append(Region(left, top, right, bottom, size))
    return found


class _Plane(NamedTuple):
    """One image of a DICOM series in space: position and directions in mm, pixel spacing, distance to the next."""

    position: tuple[float, ...]
    directions: tuple[float, ...]
    size: tuple[float, float] | None
    between: float | None


def read_stack(paths: Sequence[str | Path]) -> tuple[list[int], Spacing]:
    """Returns the order of the slices of a DICOM series, and their spacing.

    Slices are ordered by their positions along the normal of their plane, axial ones from foot to head, and their
    distance is that of their positions. Frames of one file without positions are in the order of the file, at the
    distance Spacing Between Slices. The order is empty, with a note, where the images are no volume. There is no
    distance, with a note, where neighbouring distances differ by more than 1 % and 0.02 mm.

    Args:
        paths: addresses of the images.

    Raises:
        InputError: a file cannot be read.
    """
    planes, opened, first = [], (None, None), locate(paths[0])[0]
    for path in paths:
        file, number = locate(path)
        if file != opened[0]:
            opened = file, dicom.read_header(file)
        with reading(file, 'DICOM'):
            planes.append(_plane(opened[1], number or 0))
    size, directions = planes[0].size, planes[0].directions
    if any((plane.size, plane.directions) != (size, directions) for plane in planes):
        return [], _no_volume(first, 'differ in pixel spacing or direction')
    if not all(plane.position for plane in planes) or not directions:
        if planes[0].between and all(locate(path)[0] == first for path in paths):
            return list(range(len(planes))), Spacing(size, planes[0].between)
        return [], _no_volume(first, 'have no positions')
    normal = np.cross(directions[:3], directions[3:])
    places = np.array([plane.position for plane in planes]) @ normal / np.linalg.norm(normal)
    order = np.argsort(places, kind='stable')
    steps = np.diff(places[order])
    if steps.min() < UNEQUAL[1]:
        return [], _no_volume(first, 'have a position in common')
    if np.ptp(steps) > max(UNEQUAL[0] * float(np.median(steps)), UNEQUAL[1]):
        apart = f'{steps.min():.4g} to {steps.max():.4g} mm apart'
        return order.tolist(), Spacing(size, note=f'{first}: the slices of its series are {apart}; no ml are given')
    return order.tolist(), Spacing(size, float(steps.mean()))


def _no_volume(file: Path, reason: str) -> Spacing:
    return Spacing(note=f'{file}: the images of its series {reason}; each is measured for itself')


def _plane(header: Any, number: int) -> _Plane:
    """Returns the plane of an image, or of a frame."""
    measures = dicom.about_frame(header, number, 'PixelMeasuresSequence')
    position = dicom.about_frame(header, number, 'PlanePositionSequence').get('ImagePositionPatient')
    directions = dicom.about_frame(header, number, 'PlaneOrientationSequence').get('ImageOrientationPatient')
    between = measures.get('SpacingBetweenSlices') or header.get('SpacingBetweenSlices')
    return _Plane(
        tuple(map(float, position or ())),
        tuple(round(float(value), 3) for value in directions or ()),
        _size(measures.get('PixelSpacing')) or _size(header.get('PixelSpacing')),
        None if between is None else abs(float(between)) or None,
    )
