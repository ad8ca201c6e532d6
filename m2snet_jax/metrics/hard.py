"""Protocol `hard`: the scores of a map cut at half of its full range, without stretching or a sweep of thresholds.

Per image (`score`): Dice, IoU (the Jaccard index), precision, recall (sensitivity), specificity and accuracy at
level >= 128, HD95 and ASSD in pixels, MAE of level / 255, and the counts TP FP FN TN.

Where a ratio has no denominator:
    Dice, IoU      1 when map and mask are both empty
    precision      0 when the map is empty and the mask is not; NaN when both are
    recall         NaN without lesion
    specificity    NaN without background
    HD95, ASSD     0 when map and mask are both empty, infinite when one of them is

Over a dataset (`summarise`):
    Dice … MAE                 means over the images with a lesion. One missed lesion makes HD95 and ASSD infinite,
                               because leaving it out would reward the miss
    HD95_found, ASSD_found     means over the images with a lesion whose map is not empty
    count, missed              images with a lesion; those of them whose map is empty
    pooled/…                   Dice IoU precision recall specificity accuracy of the counts summed over all images
    lesion_free/count          images without lesion
    lesion_free/false_positive_share    the share of them with any false positive pixel
    lesion_free/false_positive_area     false positive pixels as a share of the image, mean over them
"""

from typing import Any

import numpy as np
import scipy
from jaxtyping import Bool, Int
from PIL import Image

from m2snet_jax.metrics.counts import LEVELS, Counts, Lesion, Map, Mask, lesion
from m2snet_jax.metrics.sample import Figures, Sample, Stacked

THRESHOLD = 128
RATIOS = ('Dice', 'IoU', 'precision', 'recall', 'specificity', 'accuracy')
DISTANCES = ('HD95', 'ASSD')
MEANS = (*RATIOS, *DISTANCES, 'MAE')  # over the images with a lesion
TALLIES = ('count', 'missed', 'lesion_free/count')


def prepare(prediction: Map, mask: Mask) -> tuple[Map, Lesion]:
    """Returns the map at the mask's size and the lesion, which is above half of the mask's own maximum.

    A map of another size is resized in uint8 by Pillow, bilinear, as the released program resizes its own maps.
    """
    if prediction.shape != mask.shape:
        resized = Image.fromarray(prediction).resize(mask.shape[::-1], Image.Resampling.BILINEAR)
        prediction = np.asarray(resized)
    return prediction, lesion(mask)


def score(counts: Counts) -> dict[str, float]:
    """Returns the scores of one image, named as in the docstring of this file."""
    background, foreground = counts.levels
    true_positive, false_positive = int(foreground[THRESHOLD:].sum()), int(background[THRESHOLD:].sum())
    table = {
        'TP': true_positive,
        'FP': false_positive,
        'FN': counts.foreground - true_positive,
        'TN': counts.pixels - counts.foreground - false_positive,
    }
    error = (background @ LEVELS + foreground @ (255 - LEVELS)) / (255 * counts.pixels)
    hausdorff, average = surface_distances(counts.prediction >= THRESHOLD, counts.mask)
    scores = {**ratios(**table), 'HD95': hausdorff, 'ASSD': average, 'MAE': error, **table}
    return {name: float(value) for name, value in scores.items()}


def ratios(TP: Any, FP: Any, FN: Any, TN: Any) -> dict[str, Any]:
    """Returns Dice, IoU, precision, recall, specificity and accuracy of counts, numbers or arrays of them."""
    TP, FP, FN, TN = (np.asarray(count, np.float64) for count in (TP, FP, FN, TN))
    with np.errstate(invalid='ignore'):
        empty = TP + FP + FN == 0
        return {
            'Dice': np.where(empty, 1.0, 2 * TP / (2 * TP + FP + FN)),
            'IoU': np.where(empty, 1.0, TP / (TP + FP + FN)),
            'precision': np.where((TP + FP == 0) & ~empty, 0.0, TP / (TP + FP)),
            'recall': TP / (TP + FN),
            'specificity': TN / (TN + FP),
            'accuracy': (TP + TN) / (TP + FP + FN + TN),
        }


def surface_distances(first: Lesion, second: Lesion) -> tuple[float, float]:
    """Returns HD95 and ASSD of two masks, in pixels.

    A mask's surface is those of its pixels that have a 4-neighbour outside the mask or outside the image. HD95 is the
    larger of the two directed 95th percentiles (linear interpolation), ASSD the mean over all surface pixels of both
    masks of the distance to the other surface (the conventions of Metrics Reloaded and of MONAI). Both are 0 for two
    empty masks and infinite for one.
    """
    surfaces = surface(first), surface(second)
    if not all(len(points) for points in surfaces):
        distance = 0.0 if not any(len(points) for points in surfaces) else np.inf
        return distance, distance
    to_second = scipy.spatial.KDTree(surfaces[1]).query(surfaces[0])[0]
    to_first = scipy.spatial.KDTree(surfaces[0]).query(surfaces[1])[0]
    hausdorff = max(float(np.percentile(side, 95)) for side in (to_second, to_first))
    return hausdorff, float(np.concatenate([to_second, to_first]).mean())


def surface(mask: Lesion) -> Int[np.ndarray, 'pixels 2']:
    """Returns the row and column of each surface pixel of a mask."""
    edge = mask.copy()
    inner = mask[:-2, 1:-1] & mask[2:, 1:-1] & mask[1:-1, :-2] & mask[1:-1, 2:]
    edge[1:-1, 1:-1] &= ~inner
    return np.stack(np.divmod(np.flatnonzero(edge), mask.shape[1]), axis=1)


def has_lesion(scores: Stacked) -> Bool[np.ndarray, 'images']:
    """Returns which images have a lesion."""
    return scores['TP'] + scores['FN'] > 0


def counted(name: str, scores: Stacked) -> Bool[np.ndarray, 'images']:
    """Returns the images from which `summarise` computes a figure; see the docstring of this file."""
    lesions = has_lesion(scores)
    if name.startswith('lesion_free/'):
        return ~lesions
    if name.startswith('pooled/'):
        return np.ones_like(lesions)
    return lesions & (scores['TP'] + scores['FP'] > 0) if name.endswith('_found') else lesions


def summarise(scores: Stacked, sample: Sample) -> Figures:
    """Returns the figures of a dataset from its stacked per-image scores, named as in the docstring of this file."""
    lesions = has_lesion(scores)
    found = scores['TP'] + scores['FP'] > 0
    area = scores['FP'] / (scores['FP'] + scores['TN'] + scores['TP'] + scores['FN'])
    summary = {name: sample.mean(scores[name], lesions) for name in MEANS}
    summary |= {f'{name}_found': sample.mean(scores[name], lesions & found) for name in DISTANCES}
    summary |= {'count': sample.total(lesions), 'missed': sample.total(lesions & ~found)}
    pooled = ratios(*(sample.total(scores[name]) for name in ('TP', 'FP', 'FN', 'TN')))
    summary |= {f'pooled/{name}': value for name, value in pooled.items()}
    summary |= {
        'lesion_free/count': sample.total(~lesions),
        'lesion_free/false_positive_share': sample.mean(scores['FP'] > 0, ~lesions),
        'lesion_free/false_positive_area': sample.mean(area, ~lesions),
    }
    return summary
