"""A dataset's images, or several resamples of them: the weights under which every figure is computed."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Shaped

Stacked = dict[str, Float64[np.ndarray, 'images ...']]  # scores by name
Figures = dict[str, Float64[np.ndarray, 'resamples']]


@dataclass(frozen=True)
class Sample:
    """A dataset, or several resamples of it.

    Attributes:
        weights: how often each resample draws each image; the dataset itself is one row of ones.
        omit_nan: whether `mean` leaves NaN out (per image and threshold) or returns it.
    """

    weights: Float64[np.ndarray, 'resamples images']
    omit_nan: bool = False

    def total(self, values: Shaped[np.ndarray, 'images ...']) -> Float64[np.ndarray, 'resamples ...']:
        """Returns the sums of finite values over the images of each resample."""
        values = np.asarray(values, np.float64)
        return (self.weights @ values.reshape(len(values), -1)).reshape(-1, *values.shape[1:])

    def mean(
        self, values: Shaped[np.ndarray, 'images ...'], where: Bool[np.ndarray, 'images'] | None = None
    ) -> Float64[np.ndarray, 'resamples ...']:
        """Returns the means of values over the images `where`, by default all; NaN over none."""
        values = np.asarray(values, np.float64)
        kept = np.ones(len(values), bool) if where is None else where
        kept = np.broadcast_to(kept.reshape(-1, *[1] * (values.ndim - 1)), values.shape)
        undefined = kept & np.isnan(values)
        kept = kept & ~undefined
        infinite = kept & np.isinf(values)
        with np.errstate(invalid='ignore'):
            mean = self.total(np.where(kept & ~infinite, values, 0)) / self.total(kept)
        # An infinite score that a resample does not draw must add 0, not 0 x inf.
        if infinite.any():
            mean[self.total(infinite) > 0] = np.inf
        if undefined.any() and not self.omit_nan:
            mean[self.total(undefined) > 0] = np.nan
        return mean
