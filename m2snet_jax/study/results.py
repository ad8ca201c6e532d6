"""The table of a study from the runs finished so far: means over seeds, differences, losses, times."""

from typing import Any

import numpy as np

from m2snet_jax.data.subfolders import clusters_of
from m2snet_jax.evaluation.comparison import read_scores
from m2snet_jax.evaluation.published import published
from m2snet_jax.evaluation.references import HARD, reference_name
from m2snet_jax.metrics.seeds import PAIRED_FROM, seeds_and_images
from m2snet_jax.study.claims import decide_claims
from m2snet_jax.study.definition import Cell, Study
from m2snet_jax.study.run_logs import epoch_losses, training_seconds
from m2snet_jax.study.seed_scores import common_folds, seed_scores
from m2snet_jax.study.study_text import label_of

SCORES = (*HARD, 'released/Dice', 'released/IoU', 'lesion_free/false_positive_share')
RESAMPLES = 2000


def study_table(study: Study, cells: list[Cell], references: dict[str, dict] | None = None) -> dict[str, Any]:
    """Returns the table of a study, which may be written as JSON.

    Args:
        references: what `read_references` returned. Which of its images have a lesion is taken by name from the
            sheets of the study; those that no sheet names count as images with one.

    Returns:
        dict of study, about, config, changes; `runs`, the counts `finished` and `all`; `variants`, a list of dicts of
        name, about, changes, seeds, finished, same_as (names of cells), and seconds, the mean training time of a run;
        `references`, likewise; `test_sets`, {name: dict of `rows`, means and deviations over seeds, `folds`, likewise
        for each fold of a variant with several and over its folds, `differences`, as `seeds_and_images` gives them,
        `not_compared` where no images are common, and `published`}, those with rows: the finished seeds of a variant
        have a common fold; `claims`, as `decide_claims` returns them; `losses`, {variant or reference: {cell: loss of
        each epoch}}.

    Raises:
        InputError: runs of one variant were scored on different images.
    """
    references = references or {}
    variants, groups, losses = [], {}, {}
    owners = {cell.folder: cell for cell in reversed(cells)}
    for variant in study.variants:
        own = [cell for cell in cells if cell.variant == variant.name]
        done = [cell for cell in own if cell.is_finished]
        groups[variant.name] = {(cell.seed, cell.fold): read_scores(cell.folder) for cell in done}
        losses[variant.name] = {cell.name: epoch_losses(cell.folder) for cell in done if cell.source is None}
        times = [time for cell in done if (time := training_seconds(cell.folder))]
        variants.append(
            {
                'name': variant.name,
                'about': variant.about,
                'changes': variant.changes,
                'weights_of': variant.weights_of,
                'reference': variant.reference and reference_name(variant.reference),
                'runs': len(own),
                'finished': [cell.name for cell in done],
                'folders': [str(cell.folder) for cell in done],
                'same_as': [owners[cell.folder].name for cell in own if owners[cell.folder] is not cell],
                'seconds': float(np.mean(times)) if times else None,
            }
        )
    sizes = _lesion_sizes(groups)
    for model, runs in references.items():
        name = reference_name(model)
        groups[name] = {key: _with_lesions(run['test_sets'], sizes) for key, run in runs.items()}
        losses[name] = {f'{name}, seed {seed}': run['losses'] for (seed, _), run in runs.items()}
    folders = {cell.folder for cell in cells}
    test_sets = _test_sets(study, groups, cells[0].config.data.name)
    return {
        'study': study.name,
        'about': study.about,
        'config': study.config,
        'changes': study.changes,
        'runs': {'finished': len({cell.folder for cell in cells if cell.is_finished}), 'all': len(folders)},
        'variants': variants,
        'references': [_reference(model, runs) for model, runs in references.items()],
        'test_sets': test_sets,
        'claims': decide_claims(study, test_sets),
        'losses': {name: curves for name, curves in losses.items() if curves},
    }


def _lesion_sizes(groups):
    """{test set: {image: pixels of its lesion}} of the sheets of the study, for references, which have no sizes."""
    sizes = {}
    for run in (run for group in groups.values() for run in group.values()):
        for test_set, images in run.items():
            sizes.setdefault(test_set, {}).update({name: one['lesion'] for name, one in images.items()})
    return sizes


def _with_lesions(run, sizes):
    """The same test sets of another program, with the sizes of the lesions that are known."""
    return {
        test_set: {
            name: one | ({'lesion': sizes[test_set][name]} if name in sizes.get(test_set, {}) else {})
            for name, one in images.items()
        }
        for test_set, images in run.items()
    }


def _test_sets(study, groups, dataset):
    """{test set: its rows, differences and published figures}."""
    names = dict.fromkeys(name for group in groups.values() for run in group.values() for name in run)
    pairs = []
    for variant in study.variants:
        others = dict.fromkeys((study.variants[0].name, variant.against))
        pairs += [(variant.name, other, True) for other in others if other not in (None, variant.name)]
        pairs += [(variant.name, reference_name(variant.reference), False)] if variant.reference else []
    test_sets = {}
    for test_set in names:
        rows = [{'name': name, 'scores': _means(group, test_set)} for name, group in groups.items()]
        rows = [row for row in rows if row['scores']]
        if not rows:
            continue  # no seeds of a variant have finished a common fold
        differences = [
            {'name': name, 'against': other, 'scores': _differences(groups[other], groups[name], test_set, own_seeds)}
            for name, other, own_seeds in pairs
            if groups.get(other) and groups[name]
        ]
        test_sets[test_set] = {
            'rows': rows,
            'folds': [row for name, group in groups.items() for row in _fold_rows(name, group, test_set)],
            'differences': [row for row in differences if row['scores']],
            'not_compared': [label_of(row) for row in differences if not row['scores']],
            'published': published(dataset, test_set),
        }
    return test_sets


def _fold_rows(name, group, test_set):
    """Rows of the folds of a variant, and one with the mean over folds ± their deviation, as papers print it."""
    by_fold = {fold: _means(group, test_set, [fold]) for fold in common_folds(group)}
    if len(by_fold) < 2:
        return []
    over = {}
    for score in (score for score in SCORES if all(score in row for row in by_fold.values())):
        means = [row[score]['mean'] for row in by_fold.values()]
        images = sum(row[score]['images'] for row in by_fold.values())
        over[score] = {'mean': float(np.mean(means)), 'deviation': float(np.std(means, ddof=1)), 'images': images}
    rows = [{'name': f'{name}, fold {fold}', 'scores': row} for fold, row in by_fold.items()]
    return [*rows, {'name': f'{name}, mean ± deviation over folds', 'scores': over}]


def _means(group, test_set, folds=None):
    """{score: its mean over seeds, their deviation, seeds and images} of the runs of a variant on all or some folds."""
    rows, folds = {}, folds or common_folds(group)
    for score in SCORES:
        seeds, images, values = seed_scores(group, test_set, score, folds)
        if images:
            means = values.mean(1)
            deviation = float(np.std(means, ddof=1)) if len(seeds) > 1 else None
            rows[score] = {'mean': float(means.mean()), 'deviation': deviation}
            rows[score] |= {'seeds': dict(zip(map(str, seeds), means.tolist(), strict=True)), 'images': len(images)}
    return _meaningful(rows)


def _differences(first, second, test_set, own_seeds):
    """{score: what `seeds_and_images` returns} of two groups of runs, on the images that both were scored on.

    A seed is the same draw in both where they are runs of one program, `own_seeds`. Empty where the images differ, as
    while other folds are finished.
    """
    rows, folds = {}, common_folds(first, second)
    for score in SCORES:
        (seeds, images, before), (others, other_images, after) = (
            seed_scores(group, test_set, score, folds) for group in (first, second)
        )
        if not images or set(images) != set(other_images):
            continue
        after = after[:, [other_images.index(image) for image in images]]
        common = [seed for seed in seeds if seed in others]
        paired = own_seeds and len(common) >= PAIRED_FROM
        if paired:
            before = before[[seeds.index(seed) for seed in common]]
            after = after[[others.index(seed) for seed in common]]
        clusters = clusters_of(images) or images  # by name, so that the order of a sheet does not matter
        found = seeds_and_images(before, after, paired=paired, clusters=clusters, resamples=RESAMPLES)
        rows[score] = {key: _known(value) for key, value in found.items()}
        rows[score] |= {'paired': paired, 'seeds': [len(before), len(after)], 'images': len(images)}
    return _meaningful(rows)


def _meaningful(rows):
    """The same without scores of lesions where no image has one."""
    return {score: row for score, row in rows.items() if 'hard/Dice' in rows or score.startswith('lesion_free/')}


def _reference(model, runs):
    times = [run['seconds'] for run in runs.values() if run['seconds']]
    return {
        'name': reference_name(model),
        'runs': len(runs),
        'seconds': float(np.mean(times)) if times else None,
    }


def _known(value):
    """The same with None for NaN, which JSON lacks."""
    if isinstance(value, tuple):
        return [_known(one) for one in value]
    return None if value != value else value
