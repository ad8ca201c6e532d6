"""The difference between two ways of training, each run on several seeds and scored on the same images."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy
from jaxtyping import Bool, Float

from m2snet_jax.metrics.sample import Sample
from m2snet_jax.metrics.statistics import Labels, bootstrap_mean, draws, groups, interval

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
        dict of `difference`; `low`, `high`; `by_seeds`, half the width of the first interval; `by_images`, (l, u);
        `p_value`, 1 minus the highest level at which the interval excludes 0.
        NaN where there are too few seeds or images for an interval.
    """
    first, second = (np.asarray(one, np.float64) for one in (first, second))
    difference = float(second.mean() - first.mean())
    by_image = second.mean(0) - first.mean(0)
    clusters = groups(clusters, len(by_image))
    drawn = np.concatenate([Sample(weights).mean(by_image) for weights in draws(clusters, resamples, seed)])
    error, freedom = _error(first.mean(1), second.mean(1), paired)

    def bounds(level):
        low, high = interval(difference, drawn, clusters, level)
        by_seeds = float(error * scipy.special.stdtrit(freedom, (1 + level) / 2))
        joined = difference - np.hypot(by_seeds, difference - low), difference + np.hypot(by_seeds, high - difference)
        return by_seeds, (low, high), joined

    by_seeds, by_images, (low, high) = bounds(level)
    return {
        'difference': difference,
        'low': float(low),
        'high': float(high),
        'by_seeds': by_seeds,
        'by_images': by_images,
        'p_value': np.nan if np.isnan(low) else _p_value(lambda level: bounds(level)[2]),
    }


def groups_and_seeds(
    scores: Float[np.ndarray, 'seeds images'],
    is_first: Bool[np.ndarray, 'images'],
    *,
    clusters: Labels = None,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Any]:
    """Returns the mean score of the images of one group minus that of the others, with an interval.

    Each group's mean over seeds has a bootstrap interval over its images, (l₁, u₁) and (l₂, u₂). These and t over the
    differences of the seeds are joined as in `seeds_and_images`:

        low = d − √((t s)² + (m₁ − l₁)² + (u₂ − m₂)²),    high = d + √((t s)² + (u₁ − m₁)² + (m₂ − l₂)²).

    With one seed the interval is over images alone.

    Args:
        is_first: which images are of the first group.
        clusters, resamples, seed, level: as of `bootstrap_mean`.

    Returns:
        dict of `near` and `others`, the means of the two groups; `images`, their sizes; `difference`, `low`, `high`;
        `runs`, the difference of each seed. NaN where a group has one image or cluster.
    """
    members = is_first, ~is_first
    groups_of_scores = [np.asarray(scores)[:, one] for one in members]
    means = [float(group.mean()) for group in groups_of_scores]
    numbers = groups(clusters, len(is_first))
    bounds = [
        bootstrap_mean(group.mean(0), clusters=numbers[one], resamples=resamples, seed=seed, level=level)
        for group, one in zip(groups_of_scores, members, strict=True)
    ]
    differences = groups_of_scores[0].mean(1) - groups_of_scores[1].mean(1)
    by_seeds = 0.0
    if (count := len(differences)) > 1:
        by_seeds = np.std(differences, ddof=1) / np.sqrt(count) * scipy.special.stdtrit(count - 1, (1 + level) / 2)
    (low, high), (other_low, other_high) = bounds
    difference = means[0] - means[1]
    return {
        'near': means[0],
        'others': means[1],
        'images': [group.shape[1] for group in groups_of_scores],
        'difference': difference,
        'low': float(difference - np.sqrt(by_seeds**2 + (means[0] - low) ** 2 + (other_high - means[1]) ** 2)),
        'high': float(difference + np.sqrt(by_seeds**2 + (high - means[0]) ** 2 + (means[1] - other_low) ** 2)),
        'runs': differences.tolist(),
    }


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns the p-values of several claims corrected for their number, in their order.

    A claim is shown at the level α if its corrected p-value is at most α; the probability that any claim is shown that
    is not true is then at most α (Holm, "A simple sequentially rejective multiple test procedure", 1979): of the k-th
    smallest of m, the corrected one is the largest of (m − i + 1) · p₍ᵢ₎ over i ≤ k, at most 1.
    """
    values = np.asarray(p_values, np.float64)
    order = np.argsort(values, kind='stable')
    corrected = np.empty(len(values))
    corrected[order] = np.minimum(np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)), 1)
    return corrected.tolist()


def _p_value(bounds):
    """Returns 1 minus the highest level at which an interval, `bounds(level)` → (low, high), excludes 0."""
    includes, excludes = 0.0, 1.0  # p-values at which it does
    for _ in range(20):
        middle = (includes + excludes) / 2
        low, high = bounds(1 - middle)
        includes, excludes = (includes, middle) if low > 0 or high < 0 else (middle, excludes)
    return excludes


def _error(first, second, paired):
    """Returns the standard error of the difference of the means of runs, [S₁] and [S₂], and t's degrees of freedom."""
    if min(len(first), len(second)) < 2:
        return np.nan, 1
    if paired:
        return np.sqrt(np.var(second - first, ddof=1) / len(first)), len(first) - 1
    parts = [np.var(means, ddof=1) / len(means) for means in (first, second)]
    total = parts[0] ** 2 / (len(first) - 1) + parts[1] ** 2 / (len(second) - 1)
    return np.sqrt(sum(parts)), sum(parts) ** 2 / total if total else 1
