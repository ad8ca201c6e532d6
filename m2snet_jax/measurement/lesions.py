"""The lesions of a mask: connected components and their size and shape.

A position is (x, y) in pixels; (0, 0) is the centre of the upper left pixel. An area is the number of pixels times the
area of a pixel. A diameter is a largest distance between midpoints of pixel edges: a lesion of one pixel has diameter
1, a row of n pixels has n, and a disc of radius r at most 2r + 1.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from scipy import ndimage
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist, squareform

Size = tuple[float, float]  # mm between rows and between columns
Mask = Bool[np.ndarray, 'height width']
# (down, right) of the lines that measure a perimeter, by their angle in [0, π)
DIRECTIONS = ((0, 1), (1, 2), (1, 1), (2, 1), (1, 0), (2, -1), (1, -1), (1, -2))


@dataclasses.dataclass(frozen=True)
class Lesion:
    """One lesion. What is in mm is None where the spacing is not known; what is of a volume is None in a picture.

    In a volume, area, position, diameters and circularity are those of the axial section with the largest diameter.

    Attributes:
        area_px: pixels.
        centroid_x_px, centroid_y_px: mean position of the pixels.
        box_left_px, box_top_px, box_width_px, box_height_px: the first column and row, and the number of each.
        diameter_px: the largest diameter (Feret).
        perpendicular_px: the diameter perpendicular to the largest.
        circularity: 4π area / perimeter², at most 1, of a disc 1.
        area_mm2, diameter_mm, perpendicular_mm: the same in mm; the largest diameter may have another direction.
        mean_probability, largest_probability: over the lesion, in [0, 1]; None without a map.
        slice: of the section that is measured, counted from 0.
        slices: that the lesion passes through.
        volume_voxels, volume_ml: its volume.
    """

    area_px: int
    centroid_x_px: float
    centroid_y_px: float
    box_left_px: int
    box_top_px: int
    box_width_px: int
    box_height_px: int
    diameter_px: float
    perpendicular_px: float
    circularity: float
    area_mm2: float | None = None
    diameter_mm: float | None = None
    perpendicular_mm: float | None = None
    mean_probability: float | None = None
    largest_probability: float | None = None
    slice: int | None = None
    slices: int | None = None
    volume_voxels: int | None = None
    volume_ml: float | None = None

    @property
    def pixels(self) -> int:
        """The number of pixels, in a volume of voxels."""
        return self.area_px if self.volume_voxels is None else self.volume_voxels


def label_lesions(mask: Bool[np.ndarray, '*shape'], smallest: int = 0) -> Int[np.ndarray, '*shape']:
    """Returns the number of the lesion of each pixel, 0 outside; 1 is the largest lesion.

    Pixels that touch at an edge or a corner are one lesion: 8 neighbours in a picture, 26 in a volume. Lesions of one
    size are numbered from the top. Lesions of fewer than `smallest` pixels or voxels are left out.
    """
    labels = np.zeros(mask.shape, np.int32)
    count = int(ndimage.label(mask, np.ones((3,) * mask.ndim, bool), output=labels))  # pyright: ignore[reportArgumentType]
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    order = np.argsort(-sizes, kind='stable')
    numbers = np.zeros(count + 1, np.int32)
    numbers[order + 1] = np.arange(1, count + 1)
    numbers[1:][sizes < smallest] = 0
    return numbers[labels]


def measure_lesions(
    mask: Mask,
    probability: Float[np.ndarray, 'height width'] | None = None,
    spacing: Size | Callable[[float, float], Size | None] | None = None,
) -> list[Lesion]:
    """Returns the lesions of a picture, the largest first.

    Args:
        mask: where there is lesion.
        probability: in [0, 1].
        spacing: mm between rows and between columns, or a function that returns them of a centroid (x, y).
    """
    return measure_labels(label_lesions(mask), probability, spacing)


def measure_labels(
    labels: Int[np.ndarray, 'height width'],
    probability: Float[np.ndarray, 'height width'] | None = None,
    spacing: Size | Callable[[float, float], Size | None] | None = None,
) -> list[Lesion]:
    """Returns the lesions of a picture from what `label_lesions` returned for it."""
    lesions = []
    for number, box in enumerate(ndimage.find_objects(labels), 1):
        inside = labels[box] == number
        rows, columns = np.nonzero(inside)
        top, left = box[0].start, box[1].start
        x, y = left + float(columns.mean()), top + float(rows.mean())
        size = spacing(x, y) if callable(spacing) else spacing
        diameter, perpendicular = _diameters(inside, (1, 1))
        measured: dict[str, Any] = {}
        if size is not None:
            measured['area_mm2'] = len(rows) * size[0] * size[1]
            measured['diameter_mm'], measured['perpendicular_mm'] = _diameters(inside, size)
        lesions.append(
            Lesion(
                area_px=len(rows),
                centroid_x_px=x,
                centroid_y_px=y,
                box_left_px=left,
                box_top_px=top,
                box_width_px=inside.shape[1],
                box_height_px=inside.shape[0],
                diameter_px=diameter,
                perpendicular_px=perpendicular,
                circularity=_circularity(inside, size or (1, 1)),
                **measured,
                **_probabilities(probability, labels == number),
            )
        )
    return lesions


def measure_volume(
    labels: Int[np.ndarray, 'slices height width'],
    probability: Float[np.ndarray, 'slices height width'] | None = None,
    spacing: tuple[float, float, float] | None = None,
) -> list[Lesion]:
    """Returns the lesions of a volume, the largest first.

    Args:
        labels: what `label_lesions` returned for the volume.
        probability: in [0, 1].
        spacing: mm between slices, rows and columns.
    """
    lesions = []
    for number, box in enumerate(ndimage.find_objects(labels), 1):
        inside = labels[box] == number
        size = None if spacing is None else spacing[1:]
        sections = [(k, one) for k, section in enumerate(inside) for one in measure_lesions(section, None, size)]
        key = 'diameter_px' if size is None else 'diameter_mm'
        index, widest = max(sections, key=lambda member: getattr(member[1], key))
        voxels = int(inside.sum())
        lesions.append(
            dataclasses.replace(
                widest,
                centroid_x_px=widest.centroid_x_px + box[2].start,
                centroid_y_px=widest.centroid_y_px + box[1].start,
                box_left_px=widest.box_left_px + box[2].start,
                box_top_px=widest.box_top_px + box[1].start,
                slice=box[0].start + index,
                slices=len({index for index, _ in sections}),
                volume_voxels=voxels,
                volume_ml=None if spacing is None else voxels * float(np.prod(spacing)) / 1000,
                **_probabilities(probability, labels == number),
            )
        )
    return lesions


def _probabilities(
    probability: Shaped[np.ndarray, '*shape'] | None, inside: Bool[np.ndarray, '*shape']
) -> dict[str, Any]:
    if probability is None:
        return {}
    values = probability[inside]
    return {'mean_probability': float(values.mean(dtype=np.float64)), 'largest_probability': float(values.max())}


def _diameters(inside: Mask, size: Size) -> Size:
    """Returns the largest distance between midpoints of pixel edges, and the extent perpendicular to it."""
    rows = np.flatnonzero(inside.any(1))  # only the first and last pixel of a row can be on the hull
    first, last = inside[rows].argmax(1), inside.shape[1] - 1 - inside[rows, ::-1].argmax(1)
    centres = np.concatenate([np.stack([rows, columns], 1) for columns in (first, last)])
    edges = np.array([(-0.5, 0), (0.5, 0), (0, -0.5), (0, 0.5)])
    points = ((centres[:, None] + edges).reshape(-1, 2)) * size
    hull = points[ConvexHull(points).vertices]
    distances = squareform(pdist(hull))
    start, end = divmod(int(distances.argmax()), len(hull))
    across = hull[end] - hull[start]
    extent = np.ptp(hull @ np.array([-across[1], across[0]])) / np.hypot(*across)
    return float(distances.max()), float(extent)


def _circularity(inside: Mask, size: Size) -> float:
    """Returns 4π area / perimeter², at most 1.

    The perimeter is π times the mean extent over directions (Cauchy and Crofton), from lines in eight directions of the
    grid, each weighted by the angle that it represents.
    """
    padded, (rows, columns) = np.pad(inside, 2), size
    angles = [np.arctan2(down * rows, right * columns) for down, right in DIRECTIONS]
    widths = (np.array([*angles[1:], angles[0] + np.pi]) - np.array([angles[-1] - np.pi, *angles[:-1]])) / 2
    perimeter = 0.0
    for (down, right), width in zip(DIRECTIONS, widths, strict=True):
        crossed = int((padded & ~np.roll(padded, (-down, -right), (0, 1))).sum())
        between_lines = rows * columns / np.hypot(down * rows, right * columns)
        perimeter += width * crossed * between_lines
    return min(1.0, float(4 * np.pi * inside.sum() * rows * columns / perimeter**2))
