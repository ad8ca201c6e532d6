"""From per-image scores to a dataset's: means, bootstrap intervals, and the comparison of two runs."""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from m2snet_jax.errors import InputError
from m2snet_jax.metrics import hard, pranet, reference

PROTOCOLS = {'reference': reference, 'pranet': pranet, 'hard': hard}
NAN_POLICIES = ('keep', 'omit')
# Elements of one block of bootstrap weights: 32 MiB.
WEIGHTS_AT_ONCE = 2**22


@dataclass(frozen=True)
class Sample:
    """A dataset, or several resamples of it at once: how often each image is drawn.

    Attributes:
        weights: float64 [B, N], draws of each of N images in each of B resamples; the dataset itself is one row
            of ones.
        omit_nan: whether `mean` leaves NaN out (per image and threshold) or returns it.
    """

    weights: np.ndarray
    omit_nan: bool = False

    def total(self, values):
        """[B, …]: sums of finite values [N, …] over the images of each resample."""
        values = np.asarray(values, np.float64)
        return (self.weights @ values.reshape(len(values), -1)).reshape(-1, *values.shape[1:])

    def mean(self, values, where=None):
        """[B, …]: means of values [N, …] over the images `where` (bool [N]); NaN over none of them."""
        values = np.asarray(values, np.float64)
        kept = np.ones(len(values), bool) if where is None else where
        kept = np.broadcast_to(kept.reshape(-1, *[1] * (values.ndim - 1)), values.shape)
        undefined = kept & np.isnan(values)
        kept = kept & ~undefined
        infinite = kept & np.isinf(values)
        with np.errstate(invalid='ignore'):
            mean = self.total(np.where(kept & ~infinite, values, 0)) / self.total(kept)
        # An infinite score that a resample does not draw must count as nothing, not as 0 x inf.
        if infinite.any():
            mean[self.total(infinite) > 0] = np.inf
        if undefined.any() and not self.omit_nan:
            mean[self.total(undefined) > 0] = np.nan
        return mean


def aggregate(scores, protocol='reference', nan_policy='keep'):
    """Dataset figures of a list of what `score` returned for each image.

    Args:
        scores: list of dicts, one an image, all of one protocol.
        protocol: 'reference' | 'pranet' | 'hard'.
        nan_policy: 'keep' returns NaN wherever the protocol does. 'omit' leaves NaN out of each mean and adds, under
            `omitted/NAME`, how many images have none for NAME, so that the figure cannot pass for the protocol's.

    Returns:
        dict of floats. 'reference' and 'pranet': the names of their per-image scores. 'hard': means over the images
        with a lesion, `pooled/…` from summed counts and `lesion_free/…`, all listed in the head of hard.py.

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
        averaged = averaged_images(stacked, protocol)
        missing = {name: np.isnan(stacked[name][averaged]).sum() for name in summary if name in stacked}
        summary |= {f'omitted/{name}': float(count) for name, count in missing.items() if count}
    return summary


def aggregate_all(scores, nan_policy='keep'):
    """`aggregate` by every protocol of a list of what `score_all` returned: keys `PROTOCOL/NAME`.

    The pooled and the lesion-free figures that come with 'hard' stand under `pooled/NAME` and `lesion_free/NAME`.
    """
    summary = {}
    for protocol in PROTOCOLS:
        for name, value in aggregate([one[protocol] for one in scores], protocol, nan_policy).items():
            own_name = name.startswith(('pooled/', 'lesion_free/'))
            summary[name if own_name else f'{protocol}/{name}'] = value
    return summary


def class_mean(summaries):
    """Mean over classes of what `aggregate` returned for each class; NaN where any class has NaN."""
    names = [name for name in summaries[0] if name not in hard.TALLIES and not name.startswith('omitted/')]
    return {name: float(np.mean([summary[name] for summary in summaries])) for name in names}


def bootstrap(scores, protocol='reference', *, clusters=None, resamples=2000, seed=0, level=0.95, nan_policy='keep'):
    """An interval for every figure of `aggregate`, its counts of images apart: dict of (low, high).

    Whole images are drawn with replacement, or whole clusters of them, and each figure is computed anew, be it a mean,
    the maximum of a mean curve or a ratio of summed counts. The quantiles are those of the expanded percentile interval
    (Hesterberg, "What Teachers Should Know about the Bootstrap", 2015), which is not too narrow for few images. NaN
    where the figure itself is NaN, and for fewer than two images or clusters.

    Args:
        scores, protocol, nan_policy: as in `aggregate`.
        clusters: N labels, where images of one label are alike, such as frames of a clip; None: each image for itself.
        resamples, seed: how many resamples, and what they are drawn from; the same seed draws the same images.
        level: coverage of the interval.
    """
    whole = aggregate(scores, protocol, nan_policy)
    clusters = groups(clusters, len(scores))
    (resampled,) = resample([stack(scores)], protocol, clusters, resamples, seed, nan_policy)
    return {name: interval(whole[name], values, clusters, level) for name, values in resampled.items()}


def bootstrap_mean(values, *, clusters=None, resamples=2000, seed=0, level=0.95):
    """(low, high) for the mean of `values` [N], one an image: the interval of `bootstrap` for any other score."""
    values = np.asarray(values, np.float64)
    clusters = groups(clusters, len(values))
    means = [Sample(weights).mean(values) for weights in draws(clusters, resamples, seed)]
    return interval(values.mean(), np.concatenate(means), clusters, level)


def compare(
    first, second, protocol='reference', *, clusters=None, resamples=2000, seed=0, level=0.95, nan_policy='keep'
):
    """Two runs on the same images, scores in the same order: dict of name → dict of floats.

    `first`, `second`: the figures of `aggregate`. `difference`: second minus first. `low`, `high`: the interval of
    `bootstrap` for it, both runs drawn alike. `p_value`: Wilcoxon's two-sided signed-rank test on the differences by
    image, or on their means by cluster, zeros left out; NaN for figures that no single image has. Under 'hard' the test
    runs over the images with a lesion, as the means do.

    Raises:
        InputError: as `aggregate`; lists of different length; under 'hard', lesions of different size.
    """
    if len(first) != len(second):
        raise InputError(f'the first run has {len(first)} scores and the second {len(second)}: score the same images')
    before, after = (aggregate(scores, protocol, nan_policy) for scores in (first, second))
    clusters = groups(clusters, len(first))
    runs = [stack(scores) for scores in (first, second)]
    averaged = averaged_images(runs[0], protocol)
    if protocol == 'hard' and not np.array_equal(*(run['TP'] + run['FN'] for run in runs)):
        raise InputError('the two runs were scored on different masks: score the same images in the same order')
    resampled = resample(runs, protocol, clusters, resamples, seed, nan_policy)
    table = {}
    for name, values in resampled[0].items():
        difference = float(subtract(after[name], before[name]))
        low, high = interval(difference, subtract(resampled[1][name], values), clusters, level)
        p_value = np.nan
        if name in runs[0]:
            by_image = subtract(runs[1][name], runs[0][name])
            p_value = signed_rank(by_image[averaged], clusters[averaged], nan_policy == 'omit')
        table[name] = {'first': before[name], 'second': after[name], 'difference': difference}
        table[name] |= {'low': low, 'high': high, 'p_value': p_value}
    return table


def stack(scores):
    """List of dicts of floats or arrays → dict of float64 [N, …]."""
    return {name: np.array([one[name] for one in scores], np.float64) for name in scores[0]}


def find_protocol(protocol):
    """The module of a protocol's name; raises InputError for any other name."""
    if protocol not in PROTOCOLS:
        raise InputError(f'protocol is {protocol!r}: choose one of {", ".join(PROTOCOLS)}')
    return PROTOCOLS[protocol]


def groups(clusters, images):
    """int [N]: 0-based number of each image's cluster."""
    if images == 0:
        raise InputError('there are no scores to resample: score at least one pair of map and mask')
    if clusters is None:
        return np.arange(images)
    if len(clusters) != images:
        raise InputError(f'there are {len(clusters)} cluster labels for {images} images: give one label an image')
    return np.unique(np.asarray(clusters), return_inverse=True)[1]


def draws(clusters, resamples, seed):
    """Yields float64 [b, N], how often each image is drawn in each of b resamples, `resamples` in all."""
    generator = np.random.default_rng(seed)
    number = clusters.max() + 1
    at_once = max(1, WEIGHTS_AT_ONCE // len(clusters))
    for start in range(0, resamples, at_once):
        size = min(at_once, resamples - start)
        drawn = generator.integers(number, size=(size, number)) + number * np.arange(size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * number).reshape(size, number)[:, clusters].astype(np.float64)


def resample(runs, protocol, clusters, resamples, seed, nan_policy):
    """For each of the stacked runs, drawn alike: dict of name → float64 [resamples]."""
    summarise = PROTOCOLS[protocol].summarise
    parts = [
        [summarise(run, Sample(weights, nan_policy == 'omit')) for run in runs]
        for weights in draws(clusters, resamples, seed)
    ]
    names = [name for name in parts[0][0] if name not in hard.TALLIES]
    return [{name: np.concatenate([part[run][name] for part in parts]) for name in names} for run in range(len(runs))]


def interval(figure, resampled, clusters, level):
    """(low, high): expanded percentile interval of a figure from its values in resamples."""
    number = len(np.unique(clusters))
    defined = np.sort(resampled[~np.isnan(resampled)])
    if np.isnan(figure) or number < 2 or not len(defined):
        return np.nan, np.nan
    tail = stats.norm.cdf(-np.sqrt(number / (number - 1)) * stats.t.ppf((1 + level) / 2, number - 1))
    # Order statistics, for there is nothing to interpolate between a finite and an infinite value.
    last = len(defined) - 1
    return float(defined[int(tail * last)]), float(defined[last - int(tail * last)])


def subtract(after, before):
    """`after` - `before`, 0 where both are the same infinity."""
    with np.errstate(invalid='ignore'):
        return np.where(np.isinf(after) & (np.equal(after, before)), 0.0, np.subtract(after, before))


def averaged_images(stacked, protocol):
    """bool [N]: the images that a protocol's means run over."""
    if protocol == 'hard':
        return hard.has_lesion(stacked)
    return np.ones(len(next(iter(stacked.values()))), bool)


def signed_rank(differences, clusters, omit_nan):
    """Two-sided p value of Wilcoxon's signed-rank test on differences [N] or on their means by cluster."""
    kept = ~np.isnan(differences)
    if not len(differences) or not (kept.all() or omit_nan):
        return np.nan
    sizes = np.bincount(clusters[kept])
    means = np.bincount(clusters[kept], differences[kept])[sizes > 0] / sizes[sizes > 0]
    nonzero = means[means != 0]
    return float(stats.wilcoxon(nonzero).pvalue) if len(nonzero) else 1.0
