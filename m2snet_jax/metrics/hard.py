"""Scores of a map cut at half of its full range, as a clinician would cut it: no stretching, no sweep of thresholds.

Per image (`score`): Dice, IoU (the Jaccard index), precision, recall (sensitivity), specificity and accuracy at
level >= 128, HD95 and ASSD in pixels, MAE of level / 255, and the counts TP FP FN TN.

Where a ratio has no denominator:
    Dice, IoU      1 when map and mask are both empty
    precision      0 when the map is empty and the mask is not; NaN when both are
    recall         NaN without lesion
    specificity    NaN without background
    HD95, ASSD     0 when map and mask are both empty, infinite when one of them is

Over a dataset (`summarise`):
    Dice … MAE                 means over the images with a lesion. One missed lesion makes HD95 and ASSD infinite, for
                               to leave it out would reward the miss; so beside them stand
    HD95_found, ASSD_found     the same over the images with a lesion whose map is not empty
    count, missed              images with a lesion; those of them whose map is empty
    pooled/…                   Dice IoU precision recall specificity accuracy of the counts summed over all images
    lesion_free/count          images without lesion
    lesion_free/false_positive_share    the share of them with any false positive pixel
    lesion_free/false_positive_area     false positive pixels as a share of the image, mean over them
"""

import numpy as np
from PIL import Image
from scipy.spatial import KDTree

from m2snet_jax.metrics.counts import LEVELS, lesion

THRESHOLD = 128
RATIOS = ('Dice', 'IoU', 'precision', 'recall', 'specificity', 'accuracy')
DISTANCES = ('HD95', 'ASSD')
TALLIES = ('count', 'missed', 'lesion_free/count')


def prepare(prediction, mask):
    """The map at the mask's size and the bool lesion: what is counted.

    A map of another size is resized in uint8 by Pillow, bilinear, as the released program brings its own maps to the
    image's size. The lesion is every mask level above half of the mask's own maximum.
    """
    if prediction.shape != mask.shape:
        resized = Image.fromarray(prediction).resize(mask.shape[::-1], Image.Resampling.BILINEAR)
        prediction = np.asarray(resized)
    return prediction, lesion(mask)


def score(counts):
    """The scores of one `Counts`: dict of floats, keys as in the head of this file."""
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


def ratios(TP, FP, FN, TN):
    """Dice, IoU, precision, recall, specificity and accuracy of counts, numbers or arrays of them."""
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


def surface_distances(first, second):
    """HD95 and ASSD of two bool [H, W] masks, in pixels.

    A mask's surface is those of its pixels that have a 4-neighbour outside the mask or outside the image. HD95 is the
    larger of the two directed 95th percentiles (linear interpolation), ASSD the mean over all surface pixels of both
    masks of the distance to the other surface (the conventions of Metrics Reloaded and of MONAI). Two empty masks are
    at distance 0, an empty one is infinitely far from any other.
    """
    surfaces = surface(first), surface(second)
    if not all(len(points) for points in surfaces):
        distance = 0.0 if not any(len(points) for points in surfaces) else np.inf
        return distance, distance
    to_second = KDTree(surfaces[1]).query(surfaces[0])[0]
    to_first = KDTree(surfaces[0]).query(surfaces[1])[0]
    hausdorff = max(np.percentile(to_second, 95), np.percentile(to_first, 95))
    return hausdorff, np.concatenate([to_second, to_first]).mean()


def surface(mask):
    """int [n, 2]: row and column of each surface pixel of a bool [H, W] mask."""
    edge = mask.copy()
    inner = mask[:-2, 1:-1] & mask[2:, 1:-1] & mask[1:-1, :-2] & mask[1:-1, 2:]
    edge[1:-1, 1:-1] &= ~inner
    return np.stack(np.divmod(np.flatnonzero(edge), mask.shape[1]), axis=1)


def has_lesion(scores):
    """bool [N]: the images with a lesion, from stacked per-image scores."""
    return scores['TP'] + scores['FN'] > 0


def summarise(scores, sample):
    """Dataset figures of stacked per-image scores (name → [N]) under a `statistics.Sample`; keys as in the head."""
    lesions = has_lesion(scores)
    found = scores['TP'] + scores['FP'] > 0
    area = scores['FP'] / (scores['FP'] + scores['TN'] + scores['TP'] + scores['FN'])
    summary = {name: sample.mean(scores[name], lesions) for name in (*RATIOS, *DISTANCES, 'MAE')}
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
