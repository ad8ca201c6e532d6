"""Doubt about a map: its predictive entropy, as a map and as one number of an image."""

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8

DILATION = 10  # pixels around the predicted lesion over which entropy is averaged
Maps = Float[np.ndarray, 'height width classes']


def entropy(probability: Maps) -> Float32[np.ndarray, 'height width classes']:
    """Returns the entropy of each pixel in bits: 0 where the probability is 0 or 1, 1 where it is one half.

    −p·log2(p) − (1 − p)·log2(1 − p); NaN becomes 1.
    """
    p = np.clip(np.nan_to_num(np.asarray(probability, np.float64), nan=0.5), 0, 1)
    with np.errstate(divide='ignore', invalid='ignore'):
        terms = [np.where(one > 0, -one * np.log2(one), 0) for one in (p, 1 - p)]
    return np.clip(terms[0] + terms[1], 0, 1).astype(np.float32)


def entropy_levels(probability: Maps) -> UInt8[np.ndarray, 'height width classes']:
    """Returns the entropy of each pixel as levels: ⌊255·bits + ½⌋."""
    return np.floor(255 * entropy(probability) + 0.5).astype(np.uint8)


def mean_entropy(probability: Maps, lesion: Bool[np.ndarray, 'height width classes']) -> float:
    """Returns the mean entropy, in bits, over the predicted lesion dilated by 10 pixels; of several classes the mean.

    Without a predicted lesion it is the mean within 10 pixels of the pixel with the highest probability.
    """
    side = 2 * DILATION + 1
    rows, columns = np.mgrid[:side, :side] - DILATION
    disc = (rows**2 + columns**2 <= DILATION**2).astype(np.uint8)
    means = []
    for bits, mask, one in zip(
        *(np.moveaxis(a, -1, 0) for a in (entropy(probability), lesion, probability)), strict=True
    ):
        region = mask.astype(np.uint8)
        if not region.any():
            region[np.unravel_index(np.argmax(np.nan_to_num(one)), one.shape)] = 1
        means.append(bits[cv2.dilate(region, disc) > 0].mean(dtype=np.float64))
    return float(np.mean(means))
