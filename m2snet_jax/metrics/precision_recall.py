"""The precision–recall curve of a test set, over the pixels of all its images."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

THRESHOLDS = np.linspace(0, 1, 127)  # TensorBoard draws no more


def precision_recall(
    pixels: Sequence[float] | np.ndarray, lesion: Sequence[float] | np.ndarray
) -> dict[str, Float64[np.ndarray, '127']]:
    """Returns TP, FP, TN, FN, precision and recall at `THRESHOLDS`, from the pixels at each of the 256 levels.

    A pixel is positive from the threshold up. Precision is 1 where nothing is positive, recall 0 without lesion.
    """
    first = np.ceil(255 * THRESHOLDS).astype(int)  # lowest level that is positive
    found, inside = (np.cumsum(np.asarray(one, np.float64)[::-1])[::-1] for one in (pixels, lesion))
    positive, true = found[first], inside[first]
    counts = {'TP': true, 'FP': positive - true, 'TN': found[0] - inside[0] - positive + true, 'FN': inside[0] - true}
    precision = np.divide(true, positive, out=np.ones_like(true), where=positive > 0)
    return {**counts, 'precision': precision, 'recall': true / max(inside[0], 1)}
