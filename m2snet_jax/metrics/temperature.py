"""Temperature scaling (Guo et al. 2017): one number that logits are divided by, to calibrate probabilities.

Logits are counted in fine bins, so that any number of pixels takes the memory of one table.
"""

import numpy as np
import scipy
from jaxtyping import Float, Float64, Shaped

from m2snet_jax.errors import InputError

LARGEST, WIDTH = 60.0, 0.02  # logits beyond ±60 count as ±60; width of a bin
LOGITS = np.arange(-LARGEST, LARGEST + WIDTH / 2, WIDTH)
BOUNDS = (0.02, 50.0)
Counts = Float64[np.ndarray, '2 bins']


def logit_counts(logits: Float[np.ndarray, '*shape'], lesion: Shaped[np.ndarray, '*shape']) -> Counts:
    """Returns the pixels outside and inside the lesion in the bins around `LOGITS`; counts may be added.

    Raises:
        InputError: sizes that differ, or logits that are NaN.
    """
    if logits.shape != lesion.shape:
        raise InputError(f'logits are {logits.shape}, lesion {lesion.shape}: give both at one size')
    if np.isnan(logits).any():
        raise InputError('logits are NaN: the network has diverged, train it again')
    bins = np.rint((np.clip(logits, -LARGEST, LARGEST) + LARGEST) / WIDTH).astype(int).ravel()
    inside = lesion.ravel().astype(bool)
    return np.stack([np.bincount(bins[inside == value], minlength=len(LOGITS)) for value in (False, True)]) + 0.0


def negative_log_likelihood(counts: Counts, temperature: float) -> float:
    """Returns the mean over pixels of −log of the probability of the true label, logits divided by `temperature`."""
    scaled = LOGITS / temperature
    background, inside = counts
    return float((background @ np.logaddexp(0, scaled) + inside @ np.logaddexp(0, -scaled)) / counts.sum())


def fit_temperature(counts: Counts) -> float:
    """Returns the temperature of the smallest `negative_log_likelihood`.

    Raises:
        InputError: pixels of one kind only, or no temperature from 0.02 to 50 is best.
    """
    if not counts.sum(axis=1).all():
        raise InputError('all pixels are lesion or none is: a temperature needs both')
    found = scipy.optimize.minimize_scalar(
        lambda log: negative_log_likelihood(counts, float(np.exp(log))), bounds=np.log(BOUNDS), method='bounded',
        options={'xatol': 1e-6},
    )  # fmt: skip
    temperature = float(np.exp(found.x))
    if not BOUNDS[0] * 1.01 < temperature < BOUNDS[1] / 1.01:
        raise InputError(
            f'no temperature from {BOUNDS[0]} to {BOUNDS[1]:g} is best: the model separates these pixels without '
            'error, or not at all; use more images'
        )
    return temperature
