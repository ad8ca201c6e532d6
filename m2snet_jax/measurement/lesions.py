"""The lesions of a mask: connected components and their size and shape.

A position is (x, y) in pixels; (0, 0) is the centre of the upper left pixel. An area is the number of pixels times the
area of a pixel. A diameter is a largest distance between midpoints of pixel edges: a lesion of one pixel has diameter
1, a row of n pixels has n, and a disc of radius r at most 2r + 1. The perpendicular diameter is the longest chord of
the convex hull in the direction perpendicular to the largest diameter.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from scipy import ndimage
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist, squareform

Size = tuple[float, float]  # mm between rows and between columns
Mask = Bool[np.ndarray, 'height width']
LONGEST = 5**0.5, 64  # step of the lines that measure a perimeter: in the longer side of a pixel, and in pixels


@dataclasses.dataclass(frozen=True)
class Lesion:
    """One lesion. What is in mm is None where the spacing is not known; what is of a volume is None in a picture.

    In a volume, area, position, diameters and circularity are those of the axial section with the largest diameter.

    Attributes:
        area_px: pixels.
        centroid_x_px, centroid_y_px: mean position of the pixels.
        box_left_px, box_top_px, box_width_px, box_height_px: the first column and row, and the number of each.
        diameter_px: the largest diameter (Feret).
        perpendicular_px: the longest chord perpendicular to the largest diameter.
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
                **_probabilities(probability, box, inside),
            )
        )
    return lesions


def measure_volume(
    labels: Int[np.ndarray, 'slices height width'],
    probability: Float[np.ndarray, 'slices height width'] | None = None,
    spacing: tuple[float | None, float, float] | None = None,
) -> list[Lesion]:
    """Returns the lesions of a volume, the largest first.

    Args:
        labels: what `label_lesions` returned for the volume.
        probability: in [0, 1].
        spacing: mm between slices, rows and columns; without the first, there are no ml.
    """
    size = None if spacing is None else (spacing[1], spacing[2])
    voxel = None if spacing is None or spacing[0] is None else spacing[0] * spacing[1] * spacing[2]
    lesions = []
    for number, box in enumerate(ndimage.find_objects(labels), 1):
        inside = labels[box] == number
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
                volume_ml=None if voxel is None else voxels * voxel / 1000,
                **_probabilities(probability, box, inside),
            )
        )
    return lesions


def _probabilities(
    probability: Shaped[np.ndarray, '*shape'] | None, box: tuple[slice, ...], inside: Bool[np.ndarray, '*box']
) -> dict[str, Any]:
    if probability is None:
        return {}
    values = probability[box][inside]
    return {'mean_probability': float(values.mean(dtype=np.float64)), 'largest_probability': float(values.max())}


def _diameters(inside: Mask, size: Size) -> Size:
    """Returns the largest distance between midpoints of pixel edges, and the longest chord perpendicular to it."""
    rows = np.flatnonzero(inside.any(1))  # only the first and last pixel of a row can be on the hull
    first, last = inside[rows].argmax(1), inside.shape[1] - 1 - inside[rows, ::-1].argmax(1)
    centres = np.concatenate([np.stack([rows, columns], 1) for columns in (first, last)])
    edges = np.array([(-0.5, 0), (0.5, 0), (0, -0.5), (0, 0.5)])
    points = ((centres[:, None] + edges).reshape(-1, 2)) * size
    hull = points[ConvexHull(points).vertices]
    distances = squareform(pdist(hull))
    start, end = divmod(int(distances.argmax()), len(hull))
    return float(distances.max()), _longest_chord(hull, start, end)


def _longest_chord(hull: Float[np.ndarray, 'points 2'], start: int, end: int) -> float:
    """Returns the longest chord of a convex polygon perpendicular to the line between two of its points.

    `start` and `end`, indices of its points, are those of the largest diameter, so no other is further along that line.
    """
    direction = (hull[end] - hull[start]) / np.linalg.norm(hull[end] - hull[start])
    along, across = hull @ direction, hull @ np.array([-direction[1], direction[0]])
    order = np.roll(np.arange(len(hull)), -start)  # one side of the polygon runs from start to end, the other back
    last = (end - start) % len(hull)
    sides = order[: last + 1], np.append(order[last:], start)[::-1]
    # The length of a chord is linear between vertices, so the longest one ends at a vertex.
    heights = [np.interp(along, along[side], across[side]) for side in sides]
    return float(np.abs(heights[0] - heights[1]).max())


def _circularity(inside: Mask, size: Size) -> float:
    """Returns 4π area / perimeter², at most 1.

    The perimeter is π times the mean extent over directions (Cauchy and Crofton), from lines in directions of the grid,
    each weighted by the angle that it represents. Of square pixels these are eight directions.
    """
    rows, columns = size
    steps = _steps(size)
    padded = np.pad(inside, [(max(abs(step[axis]) for step in steps),) * 2 for axis in (0, 1)])
    angles = [np.arctan2(down * rows, right * columns) for down, right in steps]
    widths = (np.array([*angles[1:], angles[0] + np.pi]) - np.array([angles[-1] - np.pi, *angles[:-1]])) / 2
    perimeter = 0.0
    for (down, right), width in zip(steps, widths, strict=True):
        crossed = int((padded & ~np.roll(padded, (-down, -right), (0, 1))).sum())
        between_lines = rows * columns / np.hypot(down * rows, right * columns)
        perimeter += width * crossed * between_lines
    return min(1.0, float(4 * np.pi * inside.sum() * rows * columns / perimeter**2))


@functools.cache
def _steps(size: Size) -> list[tuple[int, int]]:
    """Returns the (down, right) of the lines that measure a perimeter, by their angle in [0, π).

    They are all steps without a common divisor up to √5 times the longer side of a pixel, so that the angles between
    lines are as small with long pixels as with square ones.
    """
    rows, columns = size
    longest = LONGEST[0] * max(size) * (1 + 1e-9)
    down, right = (min(LONGEST[1], int(longest / side)) for side in size)
    steps = [(j, i) for j in range(down + 1) for i in range(-right, right + 1) if math.gcd(i, j) == 1]
    steps = [(j, i) for j, i in steps if math.hypot(j * rows, i * columns) <= longest and (j or i > 0)]
    return sorted(steps, key=lambda step: math.atan2(step[0] * rows, step[1] * columns))
