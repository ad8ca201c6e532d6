"""Protocol `released`: the scores of the released M2SNet program (utils/metric.py, test_score.py).

Each map is stretched to its own minimum and maximum. Over a dataset every score is the mean over images, lesion-free
ones included, except maxF, which is the largest F of the two mean curves.
    MAE     mean absolute error
    maxF    largest F (beta^2 0.3) over 255 thresholds
    avgF    F (beta^2 0.3) at the adaptive threshold, twice the map's mean; 0 without a hit
    wFm     weighted F-measure
    Sm      S-measure
    Em      E-measure at the adaptive threshold; of an image with one pixel 1 if map and mask are equal there, else 0
    Dice    soft: of the map itself, not of a binary one
    IoU     of the map above 0.5
    BER     balanced error of the map from 0.5 up; NaN without lesion or without background
    Acc     accuracy of the map from 0.5 up
    precision, recall    the curves, float64 [255]; entry i is the threshold 254 - i of 255 (254 and 255 share a bin)
A score is NaN where the program's is: BER as above, Sm where a block at the centroid has no or one pixel.
"""

from typing import Any

import numpy as np
from jaxtyping import Float64
from PIL import Image

from m2snet_jax.metrics.counts import Counts, Lesion, Map, Mask, lesion
from m2snet_jax.metrics.measures import enhanced_alignment, structure_measure, weighted_f
from m2snet_jax.metrics.sample import Figures, Sample, Stacked

Curve = Float64[np.ndarray, '*sets thresholds']
EPSILON = 1e-8
SMOOTH = 1e-5
BINS = 255
MEANS = ('MAE', 'avgF', 'wFm', 'Sm', 'Em', 'Dice', 'IoU', 'BER', 'Acc')


def prepare(prediction: Map, mask: Mask) -> tuple[Map, Lesion]:
    """Returns the map at the mask's size and the lesion, which is above half of the mask's own maximum.

    A map of another size is resized in uint8 by Pillow's default filter (bicubic, antialiased when shrinking).
    """
    if prediction.shape != mask.shape:
        prediction = np.asarray(Image.fromarray(prediction).resize(mask.shape[::-1]))
    return prediction, lesion(mask)


def score(counts: Counts) -> dict[str, Any]:
    """Returns the scores of one image: floats, and the two curves."""
    background, foreground = counts.levels
    stretched, span = counts.stretched, counts.offset_and_span[1]
    pixels, size = counts.pixels, counts.foreground
    total, hit = int(stretched @ (background + foreground)), int(stretched @ foreground)

    adaptive = (stretched * pixels >= 2 * total) | (stretched >= span)
    true_positive, false_positive = int(foreground[adaptive].sum()), int(background[adaptive].sum())
    strict, half = 2 * stretched > span, 2 * stretched >= span
    intersection, union = int(foreground[strict].sum()), size + int(background[strict].sum())
    sensitive, true_negative = int(foreground[half].sum()), int(background[~half].sum())
    precision, recall = curves(counts)
    scores = {
        'MAE': (size * span + total - 2 * hit) / (span * pixels),
        'maxF': max_f(precision, recall),
        'avgF': adaptive_f(true_positive, false_positive, size),
        'wFm': weighted_f(counts, epsilon=1e-6),
        'Sm': structure_measure(counts, counts.centroid, EPSILON, sample=False),
        'Em': enhanced_alignment(true_positive, false_positive, counts, EPSILON),
        'Dice': (2 * hit / span + SMOOTH) / (size + total / span + SMOOTH),
        'IoU': (intersection + SMOOTH) / (union + SMOOTH),
        'BER': 1 - (sensitive / size + true_negative / (pixels - size)) / 2 if 0 < size < pixels else np.nan,
        'Acc': (sensitive + true_negative) / pixels,
    }
    return {name: float(value) for name, value in scores.items()} | {'precision': precision, 'recall': recall}


def curves(counts: Counts) -> tuple[Curve, Curve]:
    """Returns precision and recall at each threshold; all zero without lesion."""
    if counts.foreground == 0:
        return np.zeros(BINS), np.zeros(BINS)
    bins = np.minimum(255 * counts.stretched // counts.offset_and_span[1], BINS - 1)
    background, foreground = (
        np.bincount(bins, weights=levels, minlength=BINS)[::-1].cumsum() for levels in counts.levels
    )
    return foreground / (background + foreground + EPSILON), foreground / counts.foreground


def max_f(precision: Curve, recall: Curve) -> Float64[np.ndarray, '*sets']:
    """Returns the largest F (beta^2 0.3) along the two curves."""
    return (1.3 * precision * recall / (0.3 * precision + recall + EPSILON)).max(axis=-1)


def adaptive_f(true_positive: int, false_positive: int, size: int) -> float:
    """Returns F (beta^2 0.3) of a binary map, where the lesion has `size` pixels; 0 without a hit."""
    if true_positive == 0:
        return 0.0
    precision, recall = true_positive / (true_positive + false_positive), true_positive / size
    return 1.3 * precision * recall / (0.3 * precision + recall)


def summarise(scores: Stacked, sample: Sample) -> Figures:
    """Returns the figures of a dataset from its stacked per-image scores."""
    summary = {name: sample.mean(scores[name]) for name in MEANS}
    return summary | {'maxF': max_f(sample.mean(scores['precision']), sample.mean(scores['recall']))}
