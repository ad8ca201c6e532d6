"""From per-image scores to a dataset's: means, and bootstrap intervals around them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import scipy
from jaxtyping import Float, Float64, Int

from m2snet_jax.errors import InputError
from m2snet_jax.metrics import hard, pranet, released
from m2snet_jax.metrics.sample import Figures, Sample, Stacked

PROTOCOLS = {'released': released, 'pranet': pranet, 'hard': hard}
NAN_POLICIES = ('keep', 'omit')
WEIGHTS_AT_ONCE = 2**22  # elements of one block of bootstrap weights: 32 MiB
ImageScores = Mapping[str, float | Float64[np.ndarray, 'thresholds']]  # what `score` returns
Values = Float[np.ndarray, 'images']  # one score of each image
Labels = Sequence | np.ndarray | None  # a label an image
Clusters = Int[np.ndarray, 'images']


def aggregate(scores: Sequence[ImageScores], protocol: str = 'released', nan_policy: str = 'keep') -> dict[str, float]:
    """Returns the figures of a dataset from what `score` returned for each image.

    Args:
        protocol: 'released', 'pranet' or 'hard'.
        nan_policy: 'keep' returns NaN wherever the protocol does. 'omit' leaves NaN out of each mean and adds, under
            `omitted/NAME`, the number of images without NAME, which marks the figure as not the protocol's.

    Returns:
        For 'released' and 'pranet' the names of their per-image scores. For 'hard' means over the images with a
        lesion, `pooled/…` from summed counts and `lesion_free/…`, all listed in the docstring of hard.py.

    Raises:
        InputError: no scores, scores of another protocol; an unknown protocol or policy.
    """
    module = find_protocol(protocol)
    if nan_policy not in NAN_POLICIES:
        raise InputError(f'nan_policy is {nan_policy!r}: choose one of {", ".join(NAN_POLICIES)}')
    if not scores:
        raise InputError('there are no scores to aggregate: score at least one pair of map and mask')
    whole = Sample(np.ones((1, len(scores))), nan_policy == 'omit')
    try:
        stacked = stack(scores)
        summary = module.summarise(stacked, whole)
    except (KeyError, ValueError):
        raise InputError(
            f'these are not scores of protocol {protocol} alone: aggregate what `score` gave for it'
        ) from None
    summary = {name: float(value[0]) for name, value in summary.items()}
    if nan_policy == 'omit':
        averaged = hard.has_lesion(stacked) if protocol == 'hard' else np.ones(len(scores), bool)
        missing = {name: np.isnan(stacked[name][averaged]).sum() for name in summary if name in stacked}
        summary |= {f'omitted/{name}': float(count) for name, count in missing.items() if count}
    return summary


def aggregate_all(scores: Sequence[Mapping[str, ImageScores]], nan_policy: str = 'keep') -> dict[str, float]:
    """Returns `aggregate` by every protocol of what `score_all` returned for each image: keys `PROTOCOL/NAME`.

    The pooled and the lesion-free figures of 'hard' have the keys `pooled/NAME` and `lesion_free/NAME`.
    """
    summary = {}
    for protocol in PROTOCOLS:
        for name, value in aggregate([one[protocol] for one in scores], protocol, nan_policy).items():
            own_name = name.startswith(('pooled/', 'lesion_free/'))
            summary[name if own_name else f'{protocol}/{name}'] = value
    return summary


def class_mean(summaries: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Returns the mean over classes of what `aggregate` or `aggregate_all` returned for each.

    NaN where any class has NaN. Numbers of images, such as `count`, are left out.
    """
    averaged = [name for name in summaries[0] if name.removeprefix('hard/') not in hard.TALLIES]
    names = [name for name in averaged if not name.startswith('omitted/')]
    return {name: float(np.mean([summary[name] for summary in summaries])) for name in names}


def bootstrap_mean(
    values: Values, *, clusters: Labels = None, resamples: int = 2000, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Returns the bootstrap interval of the mean, (low, high); NaN for fewer than two images or clusters.

    Args:
        values: of images, which are drawn with replacement.
        clusters: labels; images of one label, such as frames of a clip, are drawn together.
        resamples, seed: number of resamples; the same seed draws the same images.
        level: coverage of the interval.
    """
    values = np.asarray(values, np.float64)
    numbers = groups(clusters, len(values))
    means = [Sample(weights).mean(values) for weights in draws(numbers, resamples, seed)]
    return interval(values.mean(), np.concatenate(means), numbers, level)


def stack(scores: Sequence[ImageScores]) -> Stacked:
    """Returns each score of all images as one array."""
    return {name: np.array([one[name] for one in scores], np.float64) for name in scores[0]}


def find_protocol(protocol: str) -> Any:
    """Returns the module of a protocol; raises InputError for an unknown name."""
    if protocol not in PROTOCOLS:
        raise InputError(f'protocol is {protocol!r}: choose one of {", ".join(PROTOCOLS)}')
    return PROTOCOLS[protocol]


def groups(clusters: Labels, images: int) -> Clusters:
    """Returns the 0-based number of each image's cluster; without labels each image is its own."""
    if images == 0:
        raise InputError('there are no scores to resample: score at least one pair of map and mask')
    if clusters is None:
        return np.arange(images)
    if len(clusters) != images:
        raise InputError(f'there are {len(clusters)} cluster labels for {images} images: give one label an image')
    return np.unique(np.asarray(clusters), return_inverse=True)[1]


def draws(clusters: Clusters, resamples: int, seed: int) -> Iterator[Float64[np.ndarray, 'some images']]:
    """Yields how often each image is drawn, in blocks of some of the resamples."""
    generator = np.random.default_rng(seed)
    number = clusters.max() + 1
    at_once = max(1, WEIGHTS_AT_ONCE // len(clusters))
    for start in range(0, resamples, at_once):
        size = min(at_once, resamples - start)
        drawn = generator.integers(number, size=(size, number)) + number * np.arange(size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * number).reshape(size, number)[:, clusters].astype(np.float64)


def resample(runs: Sequence[Stacked], protocol: str, clusters: Clusters, resamples: int, seed: int) -> list[Figures]:
    """Returns the figures of each run in every resample; all runs are drawn alike."""
    summarise = PROTOCOLS[protocol].summarise
    parts = [[summarise(run, Sample(weights)) for run in runs] for weights in draws(clusters, resamples, seed)]
    names = [name for name in parts[0][0] if name not in hard.TALLIES]
    return [{name: np.concatenate([part[run][name] for part in parts]) for name in names} for run in range(len(runs))]


def interval(
    figure: float, resampled: Float64[np.ndarray, 'resamples'], clusters: Clusters, level: float
) -> tuple[float, float]:
    """Returns the interval (low, high) of a figure from its values in resamples; NaN where the figure is.

    This is the expanded percentile interval, which is not too narrow for few images (Hesterberg, "What Teachers Should
    Know about the Bootstrap", 2015).
    """
    number = len(np.unique(clusters))
    defined = np.sort(resampled[~np.isnan(resampled)])
    if np.isnan(figure) or number < 2 or not len(defined):
        return np.nan, np.nan
    tail = scipy.special.ndtr(-np.sqrt(number / (number - 1)) * scipy.special.stdtrit(number - 1, (1 + level) / 2))
    # Order statistics, because a finite and an infinite value cannot be interpolated.
    last = len(defined) - 1
    return float(defined[int(tail * last)]), float(defined[last - int(tail * last)])


def subtract(after: Float[np.ndarray, '...'] | float, before: Float[np.ndarray, '...'] | float) -> np.ndarray:
    """Returns `after` - `before`, 0 where both are the same infinity."""
    with np.errstate(invalid='ignore'):
        return np.where(np.isinf(after) & (np.equal(after, before)), 0.0, np.subtract(after, before))


def signed_rank(differences: Values, clusters: Clusters) -> float:
    """Returns the two-sided p-value of Wilcoxon's signed-rank test on the mean differences of the clusters.

    NaN if any difference is.
    """
    if np.isnan(differences).any() or not len(differences):
        return np.nan
    means = np.bincount(clusters, differences) / np.bincount(clusters)
    nonzero = means[means != 0]
    return float(np.asarray(scipy.stats.wilcoxon(nonzero))[1]) if len(nonzero) else 1.0  # (statistic, p-value)
