"""The difference between two ways of training, each run on several seeds and scored on the same images."""

from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import stats

from m2snet_jax.metrics.statistics import Labels, bootstrap_mean

PAIRED_FROM = 3  # common seeds; fewer leave t too few degrees of freedom


def seeds_and_images(
    first: Float[np.ndarray, 'seeds images'],
    second: Float[np.ndarray, 'other_seeds images'],
    *,
    paired: bool = False,
    clusters: Labels = None,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Any]:
    """Returns the mean score of the second minus that of the first, with an interval over both seeds and images.

    With x [S, N] the scores of N images, in the same order for both, on S seeds, the difference is d = mean(x₂) −
    mean(x₁). Two things make it uncertain, each with an interval of its own around d:

    - seeds: d ± t · s. Paired: s² = var(d_s) / S over the S differences between runs of one seed, t with S − 1 degrees
      of freedom. Unpaired (Welch): s² = v₁ + v₂, v = var of the means of the runs / S, t with
      (v₁ + v₂)² / (v₁² / (S₁ − 1) + v₂² / (S₂ − 1)) degrees of freedom.
    - images: [l, u], the paired bootstrap (`bootstrap_mean`) of mean_s x₂ − mean_s x₁ over images.

    Both are joined as the interval of a sum is from those of its independent parts (Zou & Donner, "Construction of
    confidence limits about effect measures", 2008):

        low = d − √((t s)² + (d − l)²),    high = d + √((t s)² + (u − d)²).

    The interaction of image and seed is in both parts, so the interval is too wide rather than too narrow.

    Args:
        paired: the rows of both are the same seeds in the same order.
        clusters, resamples, seed, level: as of `bootstrap_mean`.

    Returns:
        dict of `difference`; `low`, `high`; `by_seeds`, half the width of the first interval; `by_images`, (l, u).
        NaN where there are too few seeds or images for an interval.
    """
    first, second = (np.asarray(one, np.float64) for one in (first, second))
    difference = float(second.mean() - first.mean())
    low, high = bootstrap_mean(
        second.mean(0) - first.mean(0), clusters=clusters, resamples=resamples, seed=seed, level=level
    )
    by_seeds = _half_width(first.mean(1), second.mean(1), paired, level)
    return {
        'difference': difference,
        'low': float(difference - np.hypot(by_seeds, difference - low)),
        'high': float(difference + np.hypot(by_seeds, high - difference)),
        'by_seeds': by_seeds,
        'by_images': (low, high),
    }


def _half_width(first, second, paired, level):
    """Returns half the width of the t interval for the difference of the means of runs, [S₁] and [S₂]."""
    if min(len(first), len(second)) < 2:
        return np.nan
    if paired:
        error, freedom = np.sqrt(np.var(second - first, ddof=1) / len(first)), len(first) - 1
    else:
        parts = [np.var(means, ddof=1) / len(means) for means in (first, second)]
        error = np.sqrt(sum(parts))
        total = parts[0] ** 2 / (len(first) - 1) + parts[1] ** 2 / (len(second) - 1)
        freedom = sum(parts) ** 2 / total if total else 1
    return float(error * stats.t.ppf((1 + level) / 2, freedom))
