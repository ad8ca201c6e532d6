"""Two sets of findings compared: found, missed and invented lesions, and the differences of their measurements."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from m2snet_jax.errors import InputError
from m2snet_jax.measurement.findings import Findings

OVERLAP = 0.5
MEASURES = ('area_px', 'diameter_px', 'area_mm2', 'diameter_mm', 'volume_ml')


@dataclasses.dataclass(frozen=True)
class Difference:
    """The agreement of one measure over found lesions, after Bland and Altman (1986).

    Attributes:
        measure: e.g. 'area_px'.
        means, differences: of each found lesion: the mean of both values, and that of the masks minus the reference's.
        bias: the mean difference.
        low, high: bias ∓ 1.96 standard deviations of the differences; None with fewer than two lesions.
    """

    measure: str
    means: list[float]
    differences: list[float]
    bias: float
    low: float | None
    high: float | None


@dataclasses.dataclass(frozen=True)
class Agreement:
    """The lesions of masks against those of a reference.

    Attributes:
        rows: one for each lesion of either side: image, class, outcome ('found', 'missed' or 'invented'), the numbers
            of the lesion on both sides, their overlap, and each measure on both sides.
        differences: of each measure that all found lesions have on both sides.
    """

    rows: list[dict[str, Any]]
    differences: list[Difference]

    def count(self, outcome: str) -> int:
        """Returns the number of lesions 'found', 'missed' or 'invented'."""
        return sum(row['outcome'] == outcome for row in self.rows)


def compare_findings(masks: Sequence[Findings], reference: Sequence[Findings], overlap: float = OVERLAP) -> Agreement:
    """Compares the findings of the same images and classes, given in the same order.

    Lesions are paired one to one so that the sum of their overlaps is largest. The overlap is intersection over union,
    in pixels or voxels. Overlaps below `overlap` count as 0 in the sum and make no pair. A lesion of the reference with
    a partner is found, without one missed; a lesion of the masks without one is invented.

    Raises:
        InputError: an image has different sizes on both sides.
    """
    rows = [row for mine, other in zip(masks, reference, strict=True) for row in _compare_image(mine, other, overlap)]
    found = [row for row in rows if row['outcome'] == 'found']
    differences = [bland_altman(measure, found) for measure in MEASURES if found and _is_complete(found, measure)]
    return Agreement(rows, differences)


def _is_complete(rows: list[dict[str, Any]], measure: str) -> bool:
    return all(row[f'{side}_{measure}'] is not None for row in rows for side in ('mask', 'reference'))


def bland_altman(measure: str, rows: Sequence[dict[str, Any]]) -> Difference:
    """Returns the agreement of a measure over rows of found lesions."""
    mine, other = (np.array([row[f'{side}_{measure}'] for row in rows], float) for side in ('mask', 'reference'))
    differences = mine - other
    bias = float(differences.mean())
    spread = 1.96 * float(differences.std(ddof=1)) if len(differences) > 1 else None
    low, high = (None, None) if spread is None else (bias - spread, bias + spread)
    return Difference(measure, ((mine + other) / 2).tolist(), differences.tolist(), bias, low, high)


def _compare_image(mine: Findings, other: Findings, overlap: float) -> list[dict[str, Any]]:
    if mine.labels.shape != other.labels.shape:
        sizes = ['x'.join(map(str, one.labels.shape)) for one in (mine, other)]
        raise InputError(f'{mine.image}: the mask has {sizes[0]} pixels, its reference {sizes[1]}; give both one size')
    overlaps = _overlaps(mine, other)
    # Worthless overlaps would otherwise displace a valid pair if their sum is larger.
    assigned = linear_sum_assignment(-np.where(overlaps >= overlap, overlaps, 0))
    pairs = [(int(i), int(j)) for i, j in zip(*assigned, strict=True) if overlaps[i, j] >= overlap > 0]
    rows = [_row(mine, other, 'found', i, j, float(overlaps[i, j])) for i, j in sorted(pairs, key=lambda pair: pair[1])]
    rows += [_row(mine, other, 'missed', None, j) for j in range(len(other.lesions)) if j not in {j for _, j in pairs}]
    rows += [_row(mine, other, 'invented', i, None) for i in range(len(mine.lesions)) if i not in {i for i, _ in pairs}]
    return rows


def _overlaps(mine: Findings, other: Findings) -> np.ndarray:
    """Returns intersection over union of each lesion with each of the reference."""
    count = len(other.lesions) + 1
    pairs = mine.labels.astype(np.int64) * count + other.labels
    shared = np.bincount(pairs.ravel(), minlength=(len(mine.lesions) + 1) * count).reshape(-1, count)[1:, 1:]
    sizes = [np.array([lesion.pixels for lesion in one.lesions], float) for one in (mine, other)]
    return shared / (sizes[0][:, None] + sizes[1][None] - shared)


def _row(mine, other, outcome, i, j, overlap=None):
    row = {'image': mine.image, 'class': mine.class_index, 'outcome': outcome}
    row |= {'mask_number': None if i is None else i + 1, 'reference_number': None if j is None else j + 1}
    row['overlap'] = overlap
    lesions = {'mask': mine.lesions[i] if i is not None else None, 'reference': None if j is None else other.lesions[j]}
    return row | {
        f'{side}_{measure}': None if lesion is None else getattr(lesion, measure)
        for measure in MEASURES
        for side, lesion in lesions.items()
    }
