"""Scores of another program beside the runs of a study."""

import json

import numpy as np
import pytest
from study_files import study_of, variants, write_run

from m2snet_jax import InputError
from m2snet_jax.evaluation.references import read_references
from m2snet_jax.study.results import study_table
from m2snet_jax.study.study_page import write_study


def reference_files(folder, seeds=4):
    folder.mkdir()
    rng = np.random.default_rng(1)
    for seed in range(seeds):
        run = {
            'model': 'theirs', 'fold': 0, 'seed': seed, 'seconds': 60, 'loss_per_epoch': [1.0, 0.5],
            'per_image': {f'image{k}': rng.random(3).tolist() for k in range(6)},
        }  # fmt: skip
        (folder / f'theirs_{seed}.json').write_text(json.dumps(run))
    (folder / 'other.json').write_text('{"Dice": 0.5}')
    return folder


def test_another_programs_scores_stand_beside(tmp_path):
    mine = variants('a', seeds=(0, 1, 2), folds=(0,), reference='theirs')
    study, cells = study_of(tmp_path, mine)
    for cell in cells:
        write_run(cell, np.linspace(0.1, 0.9, 6) + 0.01 * cell.seed)
    references = read_references(reference_files(tmp_path / 'theirs'))
    table = study_table(study, cells, references)
    theirs = np.array(
        [[image['hard/Dice'] for image in run['test_sets']['test'].values()] for run in references['theirs'].values()]
    )
    row = table['test_sets']['test']['rows'][1]
    assert (row['name'], row['scores']['hard/Dice']['mean']) == ('reference theirs', pytest.approx(theirs.mean()))
    assert row['scores'].keys() == {'hard/Dice', 'hard/IoU', 'hard/MAE'}
    (difference,) = table['test_sets']['test']['differences']
    found = difference['scores']['hard/Dice']
    assert found['difference'] == pytest.approx(0.51 - theirs.mean(), abs=1e-9)
    assert (found['seeds'], found['paired'], difference['against']) == ([4, 3], False, 'reference theirs')
    assert table['references'] == [{'name': 'reference theirs', 'runs': 4, 'seconds': 60.0}]
    write_study(table, tmp_path / 'runs')
    page = (tmp_path / 'runs' / 'study.html').read_text()
    assert page.count('class="s0 line"') >= 3  # a line for each of our seeds
    assert page.count('class="s1 line"') >= 4
    assert 'A &lt;try&gt;.' in page
    assert 'href="a/fold0-seed0/report.html"' in page
    assert not any(word in page for word in ('<script', 'http://', 'src="http', '@import'))
    assert json.loads((tmp_path / 'runs' / 'study.json').read_text())['study'] == 'mine'
    (tmp_path / 'theirs' / 'theirs_0.json').write_text(
        '{"model": "theirs", "seed": 0, "per_image": {"image0": [1, 2]}}'
    )
    with pytest.raises(InputError, match=r'theirs_0\.json: not the scores of a run'):
        read_references(tmp_path / 'theirs')


def test_another_programs_images_without_a_lesion_are_those_of_the_study(tmp_path):
    study, cells = study_of(tmp_path, variants('a', seeds=(0, 1), reference='theirs'))
    for cell in cells:
        write_run(cell, [0.9, 0.8, 0.5, 0.4], lesion_free=2)
    (tmp_path / 'theirs').mkdir()
    images = {f'image{k}': dice for k, dice in enumerate([0.7, 0.5, 0.5, 0.3])} | {'free0': 0.0, 'free1': 1.0}
    for seed in (0, 1):
        per_image = {name: {'hard/Dice': dice, 'released/Dice': dice} for name, dice in images.items()}
        run = {'model': 'theirs', 'seed': seed, 'per_image': per_image}
        (tmp_path / 'theirs' / f'{seed}.json').write_text(json.dumps(run))
    entry = study_table(study, cells, read_references(tmp_path / 'theirs'))['test_sets']['test']
    mine, theirs = (row['scores'] for row in entry['rows'])
    assert (theirs['hard/Dice']['mean'], theirs['hard/Dice']['images']) == (pytest.approx(0.5), 4)
    assert mine['hard/Dice']['images'] == 4
    assert (theirs['released/Dice']['mean'], theirs['released/Dice']['images']) == (pytest.approx(0.5), 6)
    assert 'lesion_free/false_positive_share' not in theirs  # its file has no pixels
    assert entry['not_compared'] == []
    assert entry['differences'][0]['scores']['hard/Dice']['difference'] == pytest.approx(0.15)


def test_two_files_of_one_run_of_another_program_are_refused(tmp_path):
    for name, seed in (('a', 0), ('b', 1), ('c', 1)):
        run = {'model': 'theirs', 'seed': seed, 'per_image': {'image0': [0.5, 0.4, 0.1]}}
        (tmp_path / f'{name}.json').write_text(json.dumps(run))
    with pytest.raises(InputError, match=r"c\.json: has model 'theirs', seed 1, fold None, as .*b\.json; remove one"):
        read_references(tmp_path)


def test_another_program_may_have_several_test_sets(tmp_path):
    (tmp_path / 'theirs').mkdir()
    for name, per_image in (
        ('lists', {'Kvasir': {'a': [0.5, 0.4, 0.1]}, 'CVC-300': {'a': [0.3, 0.2, 0.1]}}),
        ('dicts', {'Kvasir': {'a': {'hard/Dice': 0.5}}, 'CVC-300': {'a': {'hard/Dice': 0.3}}}),
    ):
        (tmp_path / 'theirs' / 'x.json').write_text(json.dumps({'model': name, 'seed': 3, 'per_image': per_image}))
        found = read_references(tmp_path / 'theirs')[name][3, None]['test_sets']
        assert {test_set: images['a']['hard/Dice'] for test_set, images in found.items()} == {
            'Kvasir': 0.5, 'CVC-300': 0.3
        }  # fmt: skip
    (tmp_path / 'theirs' / 'x.json').write_text('{"model": "x", "seed": 0, "per_image": {}}')
    with pytest.raises(InputError, match=r'x\.json: not the scores of a run .*no image'):
        read_references(tmp_path / 'theirs')
