"""Protocol `pranet`: the scores of the MATLAB toolbox of PraNet and Inf-Net, as in most published tables of polyps.

Each map is stretched to its own minimum and maximum and cut at 256 thresholds.
    meanX, maxX    mean and maximum over the thresholds, for X of Dic, IoU, Em, Sen, Spe, Fm (beta 1) and Pre; over a
                   dataset, of the mean curve over images
    wFm Sm MAE     weighted F-measure, S-measure, mean absolute error; over a dataset, means over images
    Dice IoU Em Sen Spe Fm Pre    the curves, float64 [256], threshold 1 first
At a threshold without hit every curve but Em is 0, the specificity too. Of an image with one pixel Em is 1 where map
and mask are equal and 0 where they are not. Spe is NaN without background, Sm where a block at the centroid is empty;
NaN stays NaN in means, while a maximum skips it, as MATLAB's does. Without lesion the toolbox cannot compute wFm; here
it is 0.
"""

from typing import Any

import numpy as np
from jaxtyping import Float64, Int

from m2snet_jax.metrics.counts import Counts, Lesion, Map, Mask
from m2snet_jax.metrics.measures import enhanced_alignment, structure_measure, weighted_f
from m2snet_jax.metrics.sample import Figures, Sample, Stacked

EPSILON = 2.0**-52
# MATLAB's 1:-1/255:0, which it computes from both ends to the middle.
THRESHOLDS = np.concatenate([1 + np.arange(128) * (-1 / 255), 0 - np.arange(127, -1, -1) * (-1 / 255)])
CURVES = {'Dic': 'Dice', 'IoU': 'IoU', 'Em': 'Em', 'Sen': 'Sen', 'Spe': 'Spe', 'Fm': 'Fm', 'Pre': 'Pre'}


def prepare(prediction: Map, mask: Mask) -> tuple[Map, Lesion]:
    """Returns the map at the mask's size, resized as MATLAB's `imresize` does, and the lesion.

    The lesion is every mask level above 128, so that a uint8 mask of 0 and 1 is empty; a bool mask, MATLAB's logical
    image, is used as it is.
    """
    if prediction.shape != mask.shape:
        prediction = imresize(prediction, mask.shape)
    return prediction, mask if mask.dtype == bool else mask > 128


def imresize(image: Map, shape: tuple[int, ...]) -> Map:
    """Resizes as MATLAB's imresize does by default: bicubic, antialiased when shrinking.

    One axis after the other, the one with the smaller scale first, rounding to uint8 after each.
    """
    scales = [new / old for new, old in zip(shape, image.shape, strict=True)]
    for axis in np.argsort(scales, kind='stable'):
        weights = cubic_weights(image.shape[axis], shape[axis])
        resized = np.moveaxis(np.tensordot(weights, image.astype(np.float64), axes=(1, axis)), 0, axis)
        image = np.clip(np.floor(resized + 0.5), 0, 255).astype(np.uint8)
    return image


def cubic_weights(old: int, new: int) -> Float64[np.ndarray, 'new old']:
    """Returns rows of weights that sum to 1; pixels beyond the border are mirrored."""
    scale = new / old
    stretch = min(scale, 1.0)
    centre = (np.arange(new) + 0.5) / scale - 0.5
    reach = 2 / stretch
    taps = np.floor(centre - reach)[:, None] + np.arange(np.ceil(2 * reach) + 2)
    distance = np.abs(stretch * (centre[:, None] - taps))
    near = 1.5 * distance**3 - 2.5 * distance**2 + 1
    far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    kernel = np.where(distance <= 1, near, np.where(distance <= 2, far, 0.0))
    kernel /= kernel.sum(axis=1, keepdims=True)
    mirrored = taps.astype(int) % (2 * old)
    source = np.where(mirrored < old, mirrored, 2 * old - 1 - mirrored)
    weights = np.zeros((new, old))
    np.add.at(weights, (np.arange(new)[:, None], source), kernel)
    return weights


def score(counts: Counts) -> dict[str, Any]:
    """Returns the scores of one image: floats, and the seven curves."""
    stretched, span = counts.stretched, counts.offset_and_span[1]
    total, hit = int(stretched @ counts.levels.sum(axis=0)), int(stretched @ counts.levels[1])
    scores = {
        'wFm': weighted_f(counts, EPSILON),
        'Sm': max(structure_measure(counts, centroid(counts), EPSILON, sample=True), 0.0),  # NaN stays
        'MAE': (counts.foreground * span + total - 2 * hit) / (span * counts.pixels),
    }
    table = curves(counts)
    for column, name in CURVES.items():
        scores[f'mean{column}'] = table[name].mean()
        scores[f'max{column}'] = np.fmax.reduce(table[name])
    return {name: float(value) for name, value in scores.items()} | table


def centroid(counts: Counts) -> tuple[int, int]:
    """Returns the rows above and columns left of the block border: 1-based mean indices, halves rounded up."""
    size = max(counts.foreground, 1)
    rows, columns = ((2 * (total + size) + size) // (2 * size) for total in counts.index_sums)
    return rows, columns


def curves(counts: Counts) -> dict[str, Float64[np.ndarray, 'thresholds']]:
    """Returns Dice IoU Em Sen Spe Fm Pre of the map cut at each of the thresholds."""
    background, foreground = (
        np.append(levels[::-1].cumsum()[::-1], 0)[first_levels(counts)] for levels in counts.levels
    )
    size, negatives = counts.foreground, counts.pixels - counts.foreground
    hit = foreground > 0
    with np.errstate(invalid='ignore', divide='ignore'):
        precision = foreground / (foreground + background)
        recall = foreground / size
        table = {
            'Dice': 2 * foreground / (size + foreground + background),
            'IoU': foreground / (size + background),
            'Sen': recall,
            'Spe': (negatives - background) / negatives,
            'Fm': 2 * precision * recall / (precision + recall),
            'Pre': precision,
        }
    table = {name: np.where(hit, curve, 0.0) for name, curve in table.items()}
    return table | {'Em': enhanced_alignment(foreground, background, counts, EPSILON)}


def first_levels(counts: Counts) -> Int[np.ndarray, 'thresholds']:
    """Returns the lowest level that passes each threshold, 256 where none does.

    The stretch multiplies by the rounded 1 / (b - a), as MATLAB's mapminmax does: its result may miss a threshold that
    exact arithmetic meets; even the highest level may miss threshold 1.
    """
    low, span = counts.offset_and_span
    levels = np.arange(low, low + span + 1) / 255
    # A constant map has the span (0, 255), for which the stretch changes nothing.
    values = (levels - levels[0]) * (1 / (levels[-1] - levels[0]))
    first = low + np.searchsorted(values, THRESHOLDS)
    return np.where(first > low + span, 256, first)


def summarise(scores: Stacked, sample: Sample) -> Figures:
    """Returns the figures of a dataset from its stacked per-image scores."""
    summary = {name: sample.mean(scores[name]) for name in ('wFm', 'Sm', 'MAE')}
    for column, name in CURVES.items():
        curve = sample.mean(scores[name])
        summary |= {f'mean{column}': curve.mean(axis=-1), f'max{column}': np.fmax.reduce(curve, axis=-1)}
    return summary
