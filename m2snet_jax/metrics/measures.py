"""The three measures that both protocols share up to their epsilons and degrees of freedom.

S-measure (Fan et al., ICCV 2017), E-measure (Fan et al., IJCAI 2018), weighted F-measure (Margolin et al., CVPR 2014).
Integers stay integers until the last division, so that equal quantities compare equal.
"""

import math

import numpy as np


def structure_measure(counts, border, epsilon, sample):
    """S-measure (alpha 0.5) of one `Counts` as a float; NaN where the protocol's program gives NaN.

    Args:
        counts: the pair's `Counts`.
        border: (rows, columns) of the upper left one of the four blocks that meet at the lesion's centroid.
        epsilon: what the program adds to denominators.
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
    regions = sum(region_similarity(*block, counts.pixels, span, epsilon, sample) for block in blocks)
    return 0.5 * objects + 0.5 * regions


def object_similarity(moments, span, epsilon, sample):
    """2 m / (m^2 + 1 + s + epsilon), mean and deviation from (pixels, sum, sum of squares) of a map's integers."""
    pixels, total, squares = moments
    mean = total / (pixels * span)
    freedom = max(pixels - 1, 1) if sample else pixels
    deviation = math.sqrt((pixels * squares - total**2) / (pixels * freedom)) / span
    return 2 * mean / (mean**2 + 1 + deviation + epsilon)


def region_similarity(background, lesion, image_pixels, span, epsilon, sample):
    """One block's structural similarity to its part of the mask, weighted by the block's share of the image.

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


def enhanced_alignment(true_positives, false_positives, counts, epsilon):
    """E-measure of binary maps, given by their numbers of hits and false alarms, against the mask of `counts`."""
    pixels, foreground = counts.pixels, counts.foreground
    positives = true_positives + false_positives
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


def weighted_f(counts, epsilon):
    """Weighted F-measure (beta 1) of one `Counts` as a float; 0 where the mask is empty."""
    if counts.foreground == 0:
        return 0.0
    on_lesion, on_background = counts.weighted_errors
    hits = counts.foreground - on_lesion
    recall = 1 - on_lesion / counts.foreground
    precision = hits / (epsilon + hits + on_background)
    return 2 * recall * precision / (epsilon + recall + precision)
