"""The result of an evaluation as one value: what sheets, tables, report and model card are made from."""

import collections
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from m2snet_jax import metrics
from m2snet_jax.data.subfolders import clusters_of
from m2snet_jax.evaluation.cases import Member
from m2snet_jax.evaluation.image_scores import NOTES
from m2snet_jax.evaluation.published import published
from m2snet_jax.metrics import hard, pranet, released
from m2snet_jax.metrics.risk_coverage import risk_coverage
from m2snet_jax.metrics.statistics import PROTOCOLS, groups, interval, resample, stack

LEVEL, SEED = 0.95, 0  # of the bootstrap intervals
CONSTANTS = {
    'released': {
        'source': 'released program of M²SNet', 'stretch': 'min-max', 'mask': '> half of its maximum',
        'beta_squared': 0.3, 'epsilon': released.EPSILON, 'smooth': released.SMOOTH, 'thresholds': released.BINS,
    },
    'pranet': {
        'source': 'MATLAB toolbox of PraNet', 'stretch': 'min-max', 'mask': '> 128',
        'beta_squared': 1, 'epsilon': pranet.EPSILON, 'thresholds': len(pranet.THRESHOLDS),
    },
    'hard': {'source': 'cut at one level', 'stretch': 'none', 'mask': '> half of its maximum', 'level': hard.THRESHOLD},
}  # fmt: skip
SELECTED_ON_TEST = 'the checkpoint was chosen on the test set: these scores are flattered and comparable with nothing'
HARD_ALONE = ('pooled/', 'lesion_free/')  # figures of `hard` whose names lack the protocol


@dataclasses.dataclass(frozen=True)
class Scores:
    """What an evaluation found.

    Attributes:
        summary: dict of `scores`, {'<set>/<protocol>/<name>': figure}; `intervals`, {the same: (low, high)};
            `test_sets`, {name: dict of images and resampled}; `warnings`; `protocols`; `bootstrap`; `published`,
            {test set: published figures} where there are any; and what identifies the evaluation, as `config` and
            `model_hash`.
        per_image: one dict a test set, image and class, with every score that is a number.
        details: {test set: dict of `classes`, mean curves of each; `calibration`; `levels`; `cases`}, for the report.
    """

    summary: dict[str, Any]
    per_image: list[dict[str, Any]]
    details: dict[str, Any]

    @property
    def figures(self) -> dict[str, float]:
        """{'<set>/<protocol>/<name>': figure}."""
        return self.summary['scores']

    def with_summary(self, **entries: Any) -> 'Scores':
        """Returns the same scores with further entries of `summary`."""
        return dataclasses.replace(self, summary={**entries, **self.summary})


def summarise(
    results: dict[str, list[Member]], config: Any, cases: dict[str, list], about: dict, warnings: Sequence[str] = ()
) -> Scores:
    """Returns the Scores of scored images.

    Args:
        results: the scored images of each test set.
        config: `data.{name, classes}`, `evaluate.bootstrap` and `select` are read.
        cases: {test set: what `cases.draw_cases` returned}.
        about: first entries of `summary`.
        warnings: lines on the model; those on maps and masks are added here.
    """
    scores, intervals, rows, details, counts, doubt = {}, {}, [], {}, {}, {}
    warnings = [*([SELECTED_ON_TEST] if config.get('select') == 'test' else []), *warnings]
    for test_set, members in results.items():
        names, images = [member[1] for member in members], [member[-1] for member in members]
        classes = [list(one) for one in zip(*(image['scores'] for image in images), strict=True)]
        clusters = clusters_of(names)
        flat, bounds = _aggregate(classes, groups(clusters, len(names)), config.evaluate.bootstrap)
        scores |= {f'{test_set}/{name}': value for name, value in flat.items()}
        intervals |= {f'{test_set}/{name}': value for name, value in bounds.items()}
        rows += [row for name, image in zip(names, images, strict=True) for row in _rows(test_set, name, image)]
        counts[test_set] = {'images': len(names), 'resampled': 'clips' if clusters else 'images'}
        for note, number in collections.Counter(note for image in images for note in image['notes']).items():
            warnings.append(f'{test_set}: {number} {NOTES[note]}')
        details[test_set] = {
            'classes': [_curves(one) for one in classes],
            'calibration': np.asarray(sum(image['calibration'] for image in images)).tolist(),
            'levels': np.asarray(sum(image['levels'] for image in images), int).tolist(),
            'cases': cases[test_set],
        }
        if all('doubt' in image for image in images):
            doubt[test_set], details[test_set]['doubt'] = _doubt(images)
    bootstrap = {'resamples': config.evaluate.bootstrap, 'seed': SEED, 'level': LEVEL}
    summary = {**about, 'test_sets': counts, 'warnings': warnings, 'protocols': CONSTANTS, 'bootstrap': bootstrap}
    beside = {test_set: published(config.data.name, test_set) for test_set in results}
    if any(beside.values()):
        summary['published'] = beside
    if doubt:
        summary['doubt'] = doubt
    return Scores({**summary, 'intervals': intervals, 'scores': scores}, rows, details)


def _doubt(images):
    """Returns how well each doubt finds the images of low Dice: areas for the summary, and curves for the report."""
    risk = np.array([1 - np.mean([scores['hard']['Dice'] for scores in image['scores']]) for image in images])
    doubts = {
        'entropy': np.array([image['doubt']['entropy'] for image in images]),
        'pairwise_dice': np.array([-image['doubt']['pairwise_dice'] for image in images]),
    }
    found = {name: risk_coverage(risk, values) for name, values in doubts.items()}
    areas = ('area', 'ideal', 'random', 'low', 'high')
    curves = ('coverage', 'risk', 'ideal_risk')
    return (
        {name: {key: one[key] for key in areas} for name, one in found.items()},
        {name: {key: one[key].tolist() for key in curves} for name, one in found.items()},
    )


def figures_of(images: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Returns {'<protocol>/<name>': figure} of scored images, without intervals; see `image_scores.score_maps`."""
    classes = [list(one) for one in zip(*(image['scores'] for image in images), strict=True)]
    return _aggregate(classes, np.arange(len(images)), 0)[0]


def _aggregate(classes, clusters, resamples):
    """Returns ({'<protocol>/<name>': figure}, {the same: (low, high)}) of one test set.

    With several classes these are means over them; the names of each class begin with 'class<k>/'.
    """
    summaries = [metrics.aggregate_all(scores) for scores in classes]
    figures, bounds = dict(summaries[0]), {}
    if len(classes) > 1:
        figures = metrics.class_mean(summaries)
        figures |= {f'class{k}/{name}': v for k, summary in enumerate(summaries, 1) for name, v in summary.items()}
    if not resamples:
        return figures, bounds
    for protocol in PROTOCOLS:
        runs = [stack([image[protocol] for image in scores]) for scores in classes]
        drawn = resample(runs, protocol, clusters, resamples, SEED)
        for name in drawn[0]:
            key = name if name.startswith(HARD_ALONE) else f'{protocol}/{name}'
            # The number of images that a figure is from decides how wide its interval is; over classes, the fewest.
            counted = [clusters[hard.counted(name, run)] if protocol == 'hard' else clusters for run in runs]
            fewest = min(counted, key=lambda one: len(np.unique(one)))
            bounds[key] = interval(figures[key], np.mean([one[name] for one in drawn], axis=0), fewest, LEVEL)
            if len(classes) > 1:
                for k, (one, own) in enumerate(zip(drawn, counted, strict=True), start=1):
                    bounds[f'class{k}/{key}'] = interval(figures[f'class{k}/{key}'], one[name], own, LEVEL)
    return figures, bounds


def _curves(scores):
    """Returns the mean curves of one class."""
    curves = {
        f'{protocol}/{name}': np.mean([image[protocol][name] for image in scores], axis=0).tolist()
        for protocol in PROTOCOLS
        for name, value in scores[0][protocol].items()
        if np.ndim(value)
    }
    return curves | {'pranet/thresholds': pranet.THRESHOLDS.tolist()}


def _rows(test_set, name, image):
    """Yields one row of `per_image` a class: every score that is a number."""
    for number, scores in enumerate(image['scores'], start=1):
        row = {'set': test_set, 'name': name, 'class': number}
        for protocol in PROTOCOLS:
            row.update({f'{protocol}/{key}': value for key, value in scores[protocol].items() if np.ndim(value) == 0})
        row.update({f'doubt/{key}': value for key, value in image.get('doubt', {}).items()})
        yield row
