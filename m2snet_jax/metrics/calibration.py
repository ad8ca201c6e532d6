"""Calibration: of the pixels with a predicted probability of 0.7, are 70 % lesion?"""

import numpy as np
from jaxtyping import Float, Float64

from m2snet_jax.errors import InputError
from m2snet_jax.metrics.counts import Map, Mask, lesion


def calibration_counts(
    prediction: Map | Float[np.ndarray, 'height width'], mask: Mask, bins: int = 10
) -> Float64[np.ndarray, '3 bins']:
    """Returns the pixels, the sum of their probabilities and the lesion pixels in equal bins of probability.

    Counts of several images may be added. Rows 2 and 3 over row 1 are the mean probability and the observed share.

    Args:
        prediction: probabilities of lesion in [0, 1], or levels, taken as level / 255.
        mask: lesion above half of its own maximum.

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


def expected_calibration_error(counts: Float[np.ndarray, '3 bins']) -> float:
    """Returns the mean over pixels of |mean probability - observed share| of their bin."""
    pixels, probability, inside = counts
    return float(np.abs(probability - inside).sum() / pixels.sum())
