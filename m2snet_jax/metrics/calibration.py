"""Whether a probability means what it says: of the pixels said to be lesion with 0.7, are seven of ten lesion?"""

import numpy as np

from m2snet_jax.errors import InputError
from m2snet_jax.metrics.counts import lesion


def calibration_counts(prediction, mask, bins=10):
    """float64 [3, bins]: in equal bins of probability, the pixels, the sum of their probabilities, the lesion pixels.

    Counts of several images may be added. Mean probability and observed share of a bin are the second and third row
    over the first.

    Args:
        prediction: probabilities of lesion [H, W], floats in [0, 1] or uint8 levels, taken as level / 255.
        mask: uint8 or bool [H, W] of the same size; lesion is what lies above half of its own maximum.

    Raises:
        InputError: sizes that differ, floats outside [0, 1] or NaN.
    """
    if prediction.shape != mask.shape:
        found = f'prediction is {prediction.shape}, mask {mask.shape}'
        raise InputError(f'{found}: resize the map to the size of the mask')
    probability = prediction.ravel()
    if probability.dtype == np.uint8:
        # One bin a level first: that is exact and fast, and 256 probabilities remain to be binned.
        codes = probability + (lesion(mask).ravel().astype(np.uint16) << 8)
        background, inside = np.bincount(codes, minlength=512).reshape(2, 256)
        probability, pixels = np.arange(256) / 255, background + inside
    else:
        if not (probability >= 0).all() or not (probability <= 1).all():
            raise InputError('prediction has values that are not in [0, 1]: hand over probabilities, not logits')
        probability = probability.astype(np.float64)
        pixels, inside = np.ones(len(probability)), lesion(mask).ravel()
    chosen = np.minimum((probability * bins).astype(int), bins - 1)
    rows = (pixels, pixels * probability, inside)
    return np.stack([np.bincount(chosen, row, minlength=bins) for row in rows])


def expected_calibration_error(counts):
    """Mean over pixels of |mean probability - observed share| of their bin, from (summed) `calibration_counts`."""
    pixels, probability, inside = counts
    return float(np.abs(probability - inside).sum() / pixels.sum())
