"""The precision–recall curve of a test set, its pixels counted together, from how many of them have each level."""

import numpy as np

THRESHOLDS = np.linspace(0, 1, 127)  # TensorBoard draws no more


def precision_recall(pixels, lesion):
    """Returns counts and rates at `THRESHOLDS`, float64 [127] each: a pixel is positive from the threshold up.

    Args:
        pixels, lesion: [256] pixels whose map has each level, and how many of them lie in a lesion.

    Returns:
        dict of TP, FP, TN, FN, precision (1 where nothing is positive) and recall (0 where there is no lesion).
    """
    first = np.ceil(255 * THRESHOLDS).astype(int)  # lowest level that is positive
    found, inside = (np.cumsum(np.float64(one)[::-1])[::-1] for one in (pixels, lesion))
    positive, true = found[first], inside[first]
    counts = {'TP': true, 'FP': positive - true, 'TN': found[0] - inside[0] - positive + true, 'FN': inside[0] - true}
    precision = np.divide(true, positive, out=np.ones_like(true), where=positive > 0)
    return {**counts, 'precision': precision, 'recall': true / max(inside[0], 1)}
