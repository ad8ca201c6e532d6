"""Figures and intervals of the score sheets: which images they are over."""

import json

import numpy as np
import pytest
from study_files import study_of, variants, write_run

from m2snet_jax import load_config
from m2snet_jax.config import to_json
from m2snet_jax.data.subfolders import clusters_of
from m2snet_jax.evaluation.comparison import compare_runs
from m2snet_jax.evaluation.image_scores import score_maps
from m2snet_jax.evaluation.leaked import compare_leaked
from m2snet_jax.evaluation.scores import summarise
from m2snet_jax.evaluation.sheets import write_sheets
from m2snet_jax.evaluation.table import sections
from m2snet_jax.metrics import bootstrap_mean
from m2snet_jax.report.card import write_card
from m2snet_jax.study.results import study_table


def scored(name, found, lesions=(True,)):
    """One image, scored: of each class a square of 36 pixels, if it has that lesion, and a map that finds a share."""
    mask, maps = np.zeros((20, 20), np.uint8), np.zeros((20, 20, len(lesions)), np.uint8)
    for k, (share, has_lesion) in enumerate(zip(found, lesions, strict=True)):
        if has_lesion:
            mask[10 * k + 2 : 10 * k + 8, 2:8] = k + 1
            maps[10 * k + 2 : 10 * k + 8, 2 : 2 + round(6 * share), k] = 255
        else:
            maps[10 * k, : round(6 * share), k] = 255
    return 0, name, [], score_maps(maps, mask, len(lesions))


def sheet_of(members, classes=1, resamples=400):
    """The Scores of a test set."""
    config = load_config('quickstart', **{'data.classes': classes, 'evaluate.bootstrap': resamples})
    return summarise({'test': members}, config, {'test': []}, {})


def intervals_of(scores):
    return {name.removeprefix('test/'): bounds for name, bounds in scores.summary['intervals'].items()}


def test_one_image_with_a_lesion_or_without_has_no_interval(tmp_path):
    scores = sheet_of([scored(f'image{k}', [1 if k == 0 else k / 12], [k == 0]) for k in range(12)])
    assert (scores.figures['test/hard/count'], scores.figures['test/hard/Dice']) == (1, 1)
    write_sheets(scores, tmp_path)
    bounds = intervals_of(scores)
    row = compare_runs(tmp_path, tmp_path, resamples=20)['test']['scores']['hard/Dice']
    assert np.isnan(
        [bounds['hard/Dice'], bounds['hard/HD95'], bounds['hard/HD95_found'], (row['low'], row['high'])]
    ).all()
    assert np.isfinite(
        [bounds['lesion_free/false_positive_share'], bounds['pooled/Dice'], bounds['released/MAE']]
    ).all()
    bounds = intervals_of(sheet_of([scored(f'image{k}', [k / 12], [k > 0]) for k in range(12)]))
    assert np.isnan(bounds['lesion_free/false_positive_share']).all()
    assert np.isnan(bounds['lesion_free/false_positive_area']).all()
    assert np.isfinite(bounds['hard/Dice']).all()


def test_means_without_missed_lesions_are_over_those_found():
    bounds = intervals_of(sheet_of([scored(f'image{k}', [0.5 if k == 0 else 0]) for k in range(9)]))
    assert np.isnan(bounds['hard/HD95_found']).all()
    assert bounds['hard/HD95'] == (np.inf, np.inf)


def test_images_without_a_lesion_do_not_narrow_the_means_over_the_others():
    members = [scored(f'image{k}', [k / 6], [True]) for k in range(1, 7)]
    low, high = bootstrap_mean(np.array([2 * k / (k + 6) for k in range(1, 7)]), resamples=4000)
    members += [scored(f'free{k}', [0], [False]) for k in range(40)]
    found = intervals_of(sheet_of(members, resamples=4000))['hard/Dice']
    # Somewhat wider, because the number of images with a lesion differs between resamples.
    assert found[0] <= low < high <= found[1]


def test_the_mean_over_classes_has_an_interval_if_each_class_has_one():
    rare = [scored(f'image{k}', [k / 6, 0.5], [True, k == 3]) for k in range(1, 7)]
    bounds = intervals_of(sheet_of(rare, classes=2))
    assert np.isfinite(bounds['class1/hard/Dice']).all()
    assert np.isnan([bounds['class2/hard/Dice'], bounds['hard/Dice']]).all()
    both = [scored(f'image{k}', [k / 6, 0.5], [True, True]) for k in range(1, 7)]
    assert np.isfinite(intervals_of(sheet_of(both, classes=2))['hard/Dice']).all()


def test_a_class_that_an_image_lacks_is_left_out_of_its_hard_scores(tmp_path):
    members = [scored(f'image{k}', [5 / 6, 0.5], [True, k == 0]) for k in range(4)]
    members.append(scored('free', [0, 0.5], [False, False]))
    scores = sheet_of(members, classes=2)
    write_sheets(scores, tmp_path)
    found = compare_runs(tmp_path, tmp_path, resamples=20)['test']['scores']
    # Dice 10/11 and recall 5/6 of the first class in four images, 2/3 and 1/2 of the second in one of them.
    assert found['hard/Dice']['first'] == pytest.approx((3 * 10 / 11 + (10 / 11 + 2 / 3) / 2) / 4)
    assert found['hard/recall']['first'] == pytest.approx((3 * 5 / 6 + (5 / 6 + 1 / 2) / 2) / 4)
    assert scores.figures['test/hard/Dice'] == pytest.approx((10 / 11 + 2 / 3) / 2)  # first over images, then classes
    counts = {name: value for name, value in scores.figures.items() if name.endswith(('count', 'missed'))}
    assert counts == {
        'test/class1/hard/count': 4, 'test/class1/hard/missed': 0, 'test/class1/lesion_free/count': 1,
        'test/class2/hard/count': 1, 'test/class2/hard/missed': 0, 'test/class2/lesion_free/count': 4,
    }  # fmt: skip
    assert [section for section, *_ in sections(scores.summary, 'test')][2:] == ['hard', 'pooled', 'lesion-free']
    about = {'config': to_json(load_config('quickstart', **{'data.classes': 2})), 'model_hash': 'a' * 64, 'model': 'x'}
    missed = sheet_of([*members, scored('last', [1, 0], [True, True])], classes=2).with_summary(**about)
    card = write_card(missed, tmp_path).read_text()
    assert 'test, class 2: the map is empty in 1 of 2 images with a lesion.' in card
    assert card.count('the map is empty') == 1
    none = sheet_of([scored('free', [0, 0], [False, False])], classes=2)
    assert [section for section, *_ in sections(none.summary, 'test')][2:] == ['pooled', 'lesion-free']


def test_images_of_one_folder_are_drawn_together_unless_all_share_it():
    assert clusters_of(['a', 'b']) is None
    assert clusters_of(['all/a', 'all/b']) is None
    for names in (['x/1', 'x/2', 'y/1', 'z', 'x'], [f'all/{name}' for name in ('x/1', 'x/2', 'y/1', 'z', 'x')]):
        labels = clusters_of(names)
        assert labels is not None
        assert labels[0] == labels[1]
        assert len(set(labels)) == 4


FLAT = [f'{letter}{k}' for letter in 'abc' for k in range(4)]
CLIPS = [f'{name[0]}/{name}' for name in FLAT]
MIXED = [*CLIPS[:4], *FLAT[4:]]
APART = [*CLIPS[:4], *(f'{name}/0' for name in FLAT[4:])]


def bounds_of(names, tmp_path):
    """Intervals of the same scores under these names: of a sheet, `compare`, a study and `compare --leaks`."""
    sheets = sheet_of([scored(name, [(k % 5 + 1) / 6]) for k, name in enumerate(names)])
    study, cells = study_of(tmp_path, variants('one', 'other', seeds=(0, 1, 2)))
    rng = np.random.default_rng(0)
    for cell in cells:
        write_run(cell, rng.random(12), names, lesion_free=0)
    one, *_, other = cells
    compared = compare_runs(one.folder, other.folder)['test']
    assert compared['resampled'] == sheets.summary['test_sets']['test']['resampled']
    pairs = [{'names': ['t', name], 'splits': ['train', 'test']} for name in names[::2]]
    (tmp_path / 'validate.json').write_text(json.dumps({'near_duplicates': {'pairs': pairs}}))
    rows = {
        'sheet': sheets.summary['intervals']['test/hard/Dice'],
        'compare': [compared['scores']['hard/Dice'][key] for key in ('low', 'high', 'p_value')],
        'study': study_table(study, cells)['test_sets']['test']['differences'][0]['scores']['hard/Dice']['by_images'],
    }
    leaked = compare_leaked([str(one.folder)], tmp_path / 'validate.json')['test']['hard/Dice']
    return compared['resampled'], rows | {'leaks': [leaked['low'], leaked['high']]}


@pytest.mark.parametrize(
    ('names', 'same', 'resampled'),
    [
        ([f'maps/all/{name}' for name in FLAT], FLAT, 'images'),
        (MIXED, APART, 'clips'),
        ([f'all/{name}' for name in MIXED], APART, 'clips'),
    ],
)
def test_names_that_say_the_same_have_the_same_intervals_in_every_table(names, same, resampled, tmp_path):
    for folder in ('names', 'same'):
        (tmp_path / folder).mkdir()
    (by, found), (_, expected) = bounds_of(names, tmp_path / 'names'), bounds_of(same, tmp_path / 'same')
    assert by == resampled
    for table, bounds in found.items():
        assert np.isfinite(bounds).all()
        assert bounds == pytest.approx(expected[table]), table
