"""Risk against coverage: how large is the error if only the images of least doubt are kept?

The risk of an image is 1 − Dice. At coverage k/n the k images of least doubt are kept; the risk is their mean. The
area under the curve is the mean over all k (Geifman and El-Yaniv 2017). The ideal order is that of the risk itself. In
random order the expected risk is the mean of all images at every coverage.
"""

from typing import Any

import numpy as np
from jaxtyping import Float, Float64

from m2snet_jax.errors import InputError

ORDERS, SEED, LEVEL = 2000, 0, 0.95  # random orders of the interval
Values = Float[np.ndarray, 'images']


def risk_coverage(risk: Values, doubt: Values) -> dict[str, Any]:
    """Returns how well doubt finds the images of high risk.

    Images of equal doubt count with their mean risk, as if they came in random order.

    Returns:
        dict of `area`; `ideal`, the area of the best order; `random`, the expected area of a random order; `low` and
        `high`, between which 95 % of random orders lie; `coverage`, `risk` and `ideal_risk`, the curves, float64
        [images].

    Raises:
        InputError: no images, other numbers of risks and doubts, or values that are not finite.
    """
    risk, doubt = np.asarray(risk, np.float64), np.asarray(doubt, np.float64)
    if risk.shape != doubt.shape or risk.ndim != 1 or not len(risk):
        raise InputError(f'risk has shape {risk.shape} and doubt {doubt.shape}: give one of each for every image')
    if not (np.isfinite(risk).all() and np.isfinite(doubt).all()):
        raise InputError('risk or doubt has values that are not finite: leave these images out')
    groups = np.unique(doubt, return_inverse=True)[1]
    means = np.bincount(groups, risk) / np.bincount(groups)
    curve = _curve(np.repeat(means, np.bincount(groups)))
    ideal = _curve(np.sort(risk))
    rng = np.random.default_rng(SEED)
    areas = [_curve(rng.permutation(risk)).mean() for _ in range(ORDERS)]
    low, high = np.quantile(areas, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return {
        'area': float(curve.mean()), 'ideal': float(ideal.mean()), 'random': float(risk.mean()),
        'low': float(low), 'high': float(high),
        'coverage': np.arange(1, len(risk) + 1) / len(risk), 'risk': curve, 'ideal_risk': ideal,
    }  # fmt: skip


def _curve(risk: Values) -> Float64[np.ndarray, 'images']:
    """Returns the mean risk of the first k images for every k."""
    return np.cumsum(risk) / np.arange(1, len(risk) + 1)
