"""The three measures that both protocols share up to their epsilons and degrees of freedom.

S-measure (Fan et al., ICCV 2017), E-measure (Fan et al., IJCAI 2018), weighted F-measure (Margolin et al., CVPR 2014).
Integers stay integers until the last division, so that equal quantities compare equal.

The E-measure divides by the number of pixels less one. Of an image with a single pixel it is 1 where map and mask are
equal and 0 where they are not; the programs divide by their epsilon instead, which gives up to 10^15.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from m2snet_jax.metrics.counts import Counts


def structure_measure(counts: Counts, border: tuple[int, int], epsilon: float, sample: bool) -> float:
    """Returns the S-measure (alpha 0.5); NaN where the protocol's program gives NaN.

    Args:
        border: (rows, columns) of the upper left of the four blocks that meet at the lesion's centroid.
        epsilon: the number that the program adds to denominators.
        sample: True for (n - 1 + epsilon) in every variance (the MATLAB toolbox), False for population variances
            beside an (n - 1) covariance (the released program).
    """
    stretched, span = counts.stretched, counts.offset_and_span[1]
    # [lower, right, lesion, (pixels, sum, sum of squares)] of the stretched levels.
    moments = counts.blocks(*border) @ np.stack([np.ones_like(stretched), stretched, stretched**2], axis=1)
    background, lesion = moments.sum(axis=(0, 1)).tolist()
    mean = (background[1] + lesion[1]) / (span * counts.pixels)
    if counts.foreground == 0:
        return 1 - mean
    if counts.foreground == counts.pixels:
        return mean

    share = counts.foreground / counts.pixels
    objects = share * object_similarity(lesion, span, epsilon, sample)
    # 1 - P on the background has the deviation of P.
    pixels, total, squares = background
    inverted = pixels, span * pixels - total, span * span * pixels - 2 * span * total + squares
    objects += (1 - share) * object_similarity(inverted, span, epsilon, sample)
    blocks = moments.reshape(4, 2, 3).tolist()
    regions = sum(region_similarity(off, on, counts.pixels, span, epsilon, sample) for off, on in blocks)
    return 0.5 * objects + 0.5 * regions


def object_similarity(moments: Sequence[int], span: int, epsilon: float, sample: bool) -> float:
    """Returns 2 m / (m^2 + 1 + s + epsilon), m mean and s deviation, from (pixels, sum, sum of squares) of integers."""
    pixels, total, squares = moments
    mean = total / (pixels * span)
    freedom = max(pixels - 1, 1) if sample else pixels
    deviation = math.sqrt((pixels * squares - total**2) / (pixels * freedom)) / span
    return 2 * mean / (mean**2 + 1 + deviation + epsilon)


def region_similarity(
    background: Sequence[int], lesion: Sequence[int], image_pixels: int, span: int, epsilon: float, sample: bool
) -> float:
    """Returns the structural similarity of one block to its part of the mask, times the block's share of the image.

    `background` and `lesion` are (pixels, sum, sum of squares) of the block's integers.
    """
    pixels, total, squares = (first + second for first, second in zip(background, lesion, strict=True))
    freedom = pixels - 1 + (epsilon if sample else 0)
    # A block without pixels, and for the released program one of a single pixel, is 0 / 0.
    if pixels == 0 or freedom == 0:
        return math.nan
    in_lesion = lesion[0]
    covariance = pixels * lesion[1] - total * in_lesion
    spread, mask_spread = pixels * squares - total**2, pixels * in_lesion - in_lesion**2
    weight = pixels / image_pixels
    if total == 0 or in_lesion == 0 or covariance == 0:
        return weight if (total == 0 and in_lesion == 0) or (spread == 0 and mask_spread == 0) else 0.0

    mean, mask_mean = total / (pixels * span), in_lesion / pixels
    variance_freedom = freedom if sample else pixels
    variances = (spread / span**2 + mask_spread) / (pixels * variance_freedom)
    alpha = 4 * mean * mask_mean * covariance / (pixels * span * freedom)
    return weight * alpha / ((mean**2 + mask_mean**2) * variances + epsilon)


def enhanced_alignment(true_positives: Any, false_positives: Any, counts: Counts, epsilon: float) -> Any:
    """Returns the E-measure of a binary map, or of an array of them, from its pixel counts, against a mask."""
    pixels, foreground = counts.pixels, counts.foreground
    positives = true_positives + false_positives
    if pixels == 1:
        return (positives == foreground) * 1.0
    if foreground == 0:
        total = pixels - positives
    elif foreground == pixels:
        total = positives
    else:
        cells = (
            (1, 1, true_positives),
            (1, 0, false_positives),
            (0, 1, foreground - true_positives),
            (0, 0, pixels - foreground - false_positives),
        )
        total = 0
        for level, label, size in cells:
            map_part, mask_part = level - positives / pixels, label - foreground / pixels
            alignment = 2 * map_part * mask_part / (map_part**2 + mask_part**2 + epsilon)
            total = total + size * (alignment + 1) ** 2 / 4
    return total / (pixels - 1 + epsilon)


def weighted_f(counts: Counts, epsilon: float) -> float:
    """Returns the weighted F-measure (beta 1); 0 where the mask is empty."""
    if counts.foreground == 0:
        return 0.0
    on_lesion, on_background = counts.weighted_errors
    hits = counts.foreground - on_lesion
    recall = 1 - on_lesion / counts.foreground
    precision = hits / (epsilon + hits + on_background)
    return 2 * recall * precision / (epsilon + recall + precision)
