"""The error sums of the weighted F-measure (Margolin et al., CVPR 2014), the one score that needs distances."""

import numpy as np
import scipy
from jaxtyping import Bool, Float64

RADIUS = 3
GAUSSIAN = np.exp(-(np.arange(-RADIUS, RADIUS + 1) ** 2) / (2 * 5.0**2))
GAUSSIAN /= GAUSSIAN.sum()


def weighted_errors(
    error: Float64[np.ndarray, 'height width'], mask: Bool[np.ndarray, 'height width']
) -> tuple[float, float]:
    """Returns the sums of the weighted errors |P - G| over the lesion, which must not be empty, and the background.

    On the lesion each error is lowered to its 7x7 Gaussian average (sigma 5, zeros beyond the image) where that is
    smaller, the average taking at each background pixel the error of the nearest lesion pixel. On the background each
    error is weighted by 2 - exp(ln(0.5) / 5 * distance to the lesion). Ties of equally near lesion pixels are broken
    as SciPy's exact distance transform breaks them.
    """
    nearest = np.asarray(scipy.ndimage.distance_transform_edt(~mask, return_distances=False, return_indices=True))
    window = around(mask)
    source = nearest[0][window] * mask.shape[1] + nearest[1][window]
    spread = error.ravel()[source]
    for axis in (0, 1):
        spread = scipy.ndimage.correlate1d(spread, GAUSSIAN, axis, mode='constant')
    inside = mask[window]
    on_lesion = np.minimum(spread[inside], error[window][inside]).sum()

    # Background pixels without error add 0: their distances are not needed.
    wrong = np.flatnonzero((error > 0) & ~mask)
    rows, columns = np.divmod(wrong, mask.shape[1])
    distance = np.sqrt((nearest[0].ravel()[wrong] - rows) ** 2 + (nearest[1].ravel()[wrong] - columns) ** 2)
    weight = 2 - np.exp(np.log(0.5) / 5 * distance)
    # A sum, not a dot product: a threaded one is slower where several processes score.
    return float(on_lesion), float((error.ravel()[wrong] * weight).sum())


def around(mask: Bool[np.ndarray, 'height width']) -> tuple[slice, ...]:
    """Returns the slices of the lesion's bounding box, widened by the filter's radius within the image."""
    slices = []
    for axis in (1, 0):
        present = np.flatnonzero(mask.any(axis=axis))
        slices.append(slice(max(present[0] - RADIUS, 0), present[-1] + RADIUS + 1))
    return tuple(slices)
