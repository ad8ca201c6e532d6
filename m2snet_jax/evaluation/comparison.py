"""Two runs on the same images: their scores paired image by image, from the sheets that they left."""

from pathlib import Path
from typing import Any

import numpy as np

from m2snet_jax.data.subfolders import clusters_of
from m2snet_jax.errors import InputError
from m2snet_jax.evaluation.sheets import read_per_image
from m2snet_jax.metrics import hard, pranet, released
from m2snet_jax.metrics.sample import Sample
from m2snet_jax.metrics.statistics import Labels, Values, draws, groups, interval, signed_rank, subtract

# Means over images; the others are properties of a whole set, such as the maximum of a mean curve.
MEANS = {
    'released': released.MEANS,
    'pranet': ('wFm', 'Sm', 'MAE', *(f'mean{column}' for column in pranet.CURVES if column not in ('Fm', 'Pre'))),
    'hard': hard.MEANS,
}


def compare_runs(first: str | Path, second: str | Path, *, resamples: int = 2000, seed: int = 0) -> dict[str, Any]:
    """Compares the scores of two folders that `train` or `evaluate` wrote.

    Returns:
        {test set: dict of `images`, their number; `resampled`, 'images' or 'clips'; and `scores`, {'<protocol>/<name>':
        what `compare_means` returns}}, over the test sets and scores that both have. Scores of several classes are
        those of `read_scores`, so that their means may differ from those of the sheets.

    Raises:
        InputError: no sheets, no test set in common, or different images or lesions.
    """
    runs = [read_scores(folder) for folder in (first, second)]
    table = {}
    for test_set in runs[0]:
        if test_set not in runs[1]:
            continue
        before, after = (run[test_set] for run in runs)
        for folder, names, others in ((second, before, after), (first, after, before)):
            absent = [name for name in names if name not in others]
            if absent:
                raise InputError(
                    f'{folder}: {len(absent)} images of {test_set} are not scored there, e.g. {absent[0]!r}; '
                    'score both runs on the same images'
                )
        table[test_set] = _compare(list(before), before, after, resamples, seed, (first, second))
    if not table:
        raise InputError(
            f'{first} has scores of {", ".join(runs[0])}, {second} of {", ".join(runs[1])}: none in common'
        )
    return table


def compare_means(
    first: Values, second: Values, *, clusters: Labels = None, resamples: int = 2000, seed: int = 0, level: float = 0.95
) -> dict[str, float]:
    """Compares the scores of two runs on the same images, in the same order; keywords as of `bootstrap_mean`.

    Returns:
        `first`, `second`: the means. `difference`: second minus first, with its bootstrap interval `low`, `high`, both
        runs drawn alike. `p_value`: Wilcoxon's two-sided signed-rank test on the differences by image, or on their
        means by cluster, zeros left out. NaN wherever a score is NaN.
    """
    clusters = groups(clusters, len(first))
    whole = Sample(np.ones((1, len(first))))
    before, after = (float(whole.mean(values)[0]) for values in (first, second))
    difference = float(subtract(after, before))
    resampled = []
    for weights in draws(clusters, resamples, seed):
        sample = Sample(weights)
        resampled.append(subtract(sample.mean(second), sample.mean(first)))
    low, high = interval(difference, np.concatenate(resampled), clusters, level)
    p_value = float(signed_rank(subtract(second, first), clusters))
    return {
        'first': before, 'second': after, 'difference': difference, 'low': low, 'high': high, 'p_value': p_value
    }  # fmt: skip


def _compare(names, before, after, resamples, seed, folders):
    lesions = [np.array([run[name]['lesion'] for name in names]) for run in (before, after)]
    if not np.array_equal(lesions[0], lesions[1]):
        other = names[int(np.flatnonzero(lesions[0] != lesions[1])[0])]
        raise InputError(f'{folders[1]}: {other!r} was scored on another mask than in {folders[0]}; use the same data')
    labels = clusters_of(names)
    clusters = groups(labels, len(names))
    scores = {}
    for protocol, columns in MEANS.items():
        kept = lesions[0] > 0 if protocol == 'hard' else np.ones(len(names), bool)
        for column in columns if kept.any() else ():
            key = f'{protocol}/{column}'
            if any(key not in run[names[0]] for run in (before, after)):
                continue  # a sheet that was written before the score was added
            one, other = (np.array([run[name][key] for name in names])[kept] for run in (before, after))
            scores[key] = compare_means(one, other, clusters=clusters[kept], resamples=resamples, seed=seed)
    return {'images': len(names), 'resampled': 'clips' if labels else 'images', 'scores': scores}


def read_scores(folder: str | Path) -> dict[str, dict[str, dict[str, float]]]:
    """Reads every image's scores from the sheets of a run or an evaluation.

    Returns:
        {test set: {image: {'<protocol>/<name>': mean over classes, 'lesion': its pixels, 'false': false positives}}}.
        Means of protocol `hard` are over the classes that the image has, over all if it has none.
    """
    rows = {}
    for row in read_per_image(folder):
        rows.setdefault(row['set'], {}).setdefault(row['name'], []).append(row)
    columns = [f'{protocol}/{name}' for protocol, names in MEANS.items() for name in names]
    return {
        test_set: {
            name: {key: _class_mean(classes, key) for key in columns if key in classes[0]}
            | {'lesion': sum(map(_lesion, classes))}
            | {'false': sum(float(one['hard/FP']) for one in classes)}
            for name, classes in images.items()
        }
        for test_set, images in rows.items()
    }


def _class_mean(classes, key):
    """The mean of a score over the rows of one image, in protocol `hard` over those of the classes that it has."""
    present = [one for one in classes if _lesion(one) > 0] if key.startswith('hard/') else []
    return float(np.mean([float(one[key]) for one in present or classes]))


def _lesion(row):
    """The pixels of the lesion of one class."""
    return float(row['hard/TP']) + float(row['hard/FN'])
