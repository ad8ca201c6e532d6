"""Scores of the test images near training images beside those of the others, of one or several runs."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from m2snet_jax.data.subfolders import clusters_of
from m2snet_jax.errors import InputError
from m2snet_jax.evaluation.comparison import read_scores
from m2snet_jax.evaluation.references import read_reference
from m2snet_jax.metrics.seeds import groups_and_seeds

SCORES = ('hard/Dice', 'hard/IoU', 'released/Dice')


def near_training(report: str | Path) -> dict[str, set[str]]:
    """Returns {test set: names of its images with a near-duplicate in training} of a `validate.json`.

    Raises:
        InputError: not the report of `validate`, or no test image is near a training image.
    """
    try:
        pairs = json.loads(Path(report).read_text(encoding='utf-8'))['near_duplicates']['pairs']
        found = {}
        for pair in pairs:
            (name, other_name), (split, other) = pair['names'], pair['splits']
            if (split == 'train') != (other == 'train'):
                found.setdefault(other if split == 'train' else split, set()).add(
                    other_name if split == 'train' else name
                )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f'{report}: not a validate.json ({type(error).__name__}); write one by validate --output'
        ) from None
    if not found:
        raise InputError(f'{report}: no test image has a near-duplicate in training; there is nothing to compare')
    return found


def compare_leaked(runs: list[str], report: str | Path) -> dict[str, Any]:
    """Compares the scores of the test images near training images with those of the other images of their set.

    Args:
        runs: folders that `train` or `evaluate` wrote, or JSON files for `read_reference`, with the same images: seeds
            of one variant. The only test set `test` of a sheet, as of another program's maps, is the one of the report
            whose images near training it has.
        report: `validate.json` of the data that they were trained on.

    Returns:
        {test set: {score: dict of `near`, `others`, the mean scores; `images`, the numbers of both; `difference`, near
        minus others; `low`, `high`, its 95 % interval; `runs`, the difference in each}}, over the test sets that have
        images near training, and the scores that all runs have. Images without a lesion are left out of protocol
        `hard`; where one of the runs is a sheet, it says which these are.

    Raises:
        InputError: no sheets, or runs with scores of other images.
    """
    near = near_training(report)
    scores = [_named_as(near, _scores_of(run)) for run in runs]
    table = {}
    for test_set in near:
        if not all(test_set in run for run in scores):
            continue
        images = list(scores[0][test_set])
        for run, folder in zip(scores, runs, strict=True):
            if set(run[test_set]) != set(images):
                raise InputError(f'{folder}: was scored on other images of {test_set} than {runs[0]}')
        if lacking := near[test_set] - set(images):
            raise InputError(
                f'{report}: {sorted(lacking)[0]!r} of {test_set} is not scored; give the report of its data'
            )
        entry, members = {}, [run[test_set] for run in scores]
        sizes = {name: size for run in members for name, one in run.items() if (size := one.get('lesion')) is not None}
        for score in SCORES:
            scored = [name for name in images if all(score in run[name] for run in members)]
            kept = [name for name in scored if sizes.get(name, 1) > 0 or 'hard' not in score]
            is_near = np.array([name in near[test_set] for name in kept], bool)
            if is_near.any() and not is_near.all():
                values = np.array([[run[name][score] for name in kept] for run in members])
                entry[score] = groups_and_seeds(values, is_near, clusters=clusters_of(kept))
        if entry:
            table[test_set] = entry
    if not table:
        raise InputError(f'{report}: none of its test sets with images near training is scored in {runs[0]}')
    return table


def _scores_of(run):
    """The scores of the images of a run by test set."""
    if Path(run).suffix != '.json':
        return read_scores(run)
    reference = read_reference(run)
    if reference is None:
        raise InputError(f'{run}: contains no per_image; give the scores of a run')
    return reference['test_sets']


def _named_as(near, run):
    """Returns the scores of a run by test set, under the name that the report has for it."""
    if list(run) != ['test'] or 'test' in near:
        return run
    fitting = [test_set for test_set, names in near.items() if names <= set(run['test'])]
    return {fitting[0]: run['test']} if len(fitting) == 1 else run
