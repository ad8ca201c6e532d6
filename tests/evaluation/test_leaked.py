"""Test images near training images, compared with the others."""

import json

import numpy as np
import pytest
from scipy import stats
from study_files import study_of, variants, write_run

from m2snet_jax.__main__ import main
from m2snet_jax.metrics.seeds import groups_and_seeds
from m2snet_jax.metrics.statistics import bootstrap_mean


def write_report(path, pairs):
    rows = [{'names': [a, b], 'splits': [s, t]} for (a, s), (b, t) in pairs]
    path.write_text(json.dumps({'near_duplicates': {'pairs': rows}}))
    return path


def test_two_groups_of_images_of_one_run_and_of_several():
    rng = np.random.default_rng(0)
    scores, is_near = rng.random((3, 12)), np.arange(12) < 5
    near, others = scores[:, :5], scores[:, 5:]
    one = groups_and_seeds(scores[:1], is_near, resamples=300)
    (low, high), (other_low, other_high) = (bootstrap_mean(g[0], resamples=300) for g in (near, others))
    means = near[0].mean(), others[0].mean()
    assert (one['near'], one['others'], one['images']) == (*map(pytest.approx, means), [5, 7])
    assert one['low'] == pytest.approx(means[0] - means[1] - np.hypot(means[0] - low, other_high - means[1]))
    assert one['high'] == pytest.approx(means[0] - means[1] + np.hypot(high - means[0], means[1] - other_low))
    clips = np.array([*'aabbc', *'ddeeffd'])
    together = groups_and_seeds(scores[:1], is_near, clusters=clips, resamples=300)
    (low, _), (_, other_high) = (
        bootstrap_mean(scores[0][chosen], clusters=clips[chosen], resamples=300) for chosen in (is_near, ~is_near)
    )
    assert together['low'] == pytest.approx(means[0] - means[1] - np.hypot(means[0] - low, other_high - means[1]))
    constant = rng.random((4, 2)) @ np.array([[1] * 3 + [0] * 4, [0] * 3 + [1] * 4])  # images alike: t alone is left
    found = groups_and_seeds(constant, np.arange(7) < 3, resamples=50)
    by_seed = constant[:, 0] - constant[:, 6]
    t = stats.ttest_1samp(by_seed, 0).confidence_interval(0.95)
    assert (found['low'], found['high']) == pytest.approx((t.low, t.high))
    assert found['runs'] == pytest.approx(by_seed.tolist())


def test_the_command_compares_images_near_training(tmp_path, capsys):
    _, cells = study_of(tmp_path, variants('a', seeds=(0, 1)))
    for cell in cells:
        write_run(cell, [0.9, 0.8, 0.5, 0.4, 0.3], lesion_free=0)
    pairs = [
        (('t1', 'train'), ('image0', 'test')), (('image1', 'test'), ('t2', 'train')),
        (('image2', 'test'), ('image3', 'test')), (('t3', 'train'), ('t4', 'train')),
    ]  # fmt: skip
    report = write_report(tmp_path / 'validate.json', pairs)
    runs = [str(cell.folder) for cell in cells]
    assert main(['m2snet_jax', 'compare', f'--leaks={report}', *runs]) == 0
    out = capsys.readouterr().out
    assert 'test: 2 images near training images, 3 others, 2 runs' in out
    assert '0.8500   0.4000     +0.4500' in out
    assert main(['m2snet_jax', 'compare', f'--leaks={report}', '--json', runs[0]]) == 0
    row = json.loads(capsys.readouterr().out)['test']['hard/Dice']
    assert (row['images'], row['difference']) == ([2, 3], pytest.approx(0.45))
    named = [[(one, 'Kvasir' if split == 'test' else split) for one, split in pair] for pair in pairs]
    report = write_report(tmp_path / 'validate.json', named)  # the sheet has one test set without a name of its own
    assert main(['m2snet_jax', 'compare', f'--leaks={report}', '--json', runs[0]]) == 0
    assert json.loads(capsys.readouterr().out)['Kvasir']['hard/Dice']['images'] == [2, 3]
    images = {f'image{k}': [dice, dice, 0.1] for k, dice in enumerate([0.9, 0.8, 0.5, 0.4, 0.3])}
    theirs = tmp_path / 'theirs.json'
    theirs.write_text(json.dumps({'model': 'theirs', 'seed': 0, 'per_image': {'Kvasir': images}}))
    assert main(['m2snet_jax', 'compare', f'--leaks={report}', '--json', str(theirs)]) == 0
    row = json.loads(capsys.readouterr().out)['Kvasir']['hard/Dice']
    assert (row['images'], row['difference']) == ([2, 3], pytest.approx(0.45))


def test_a_run_beside_another_programs_scores_in_any_order(tmp_path, capsys):
    _, (cell,) = study_of(tmp_path, variants('a'))
    write_run(cell, [0.9, 0.8, 0.5, 0.4], lesion_free=2)
    images = {f'image{k}': [dice, dice / 2, 0.1] for k, dice in enumerate([0.7, 0.6, 0.5, 0.4])}
    images |= {'free0': [0.0, 0.0, 0.1], 'free1': [1.0, 1.0, 0.0]}  # its file does not say that these have no lesion
    theirs = tmp_path / 'theirs.json'
    theirs.write_text(json.dumps({'model': 'theirs', 'seed': 0, 'per_image': images}))
    near = [(('t1', 'train'), ('image0', 'test')), (('t2', 'train'), ('image1', 'test'))]
    report = write_report(tmp_path / 'validate.json', [*near, (('t3', 'train'), ('free1', 'test'))])
    for runs in ([cell.folder, theirs], [theirs, cell.folder]):
        assert main(['m2snet_jax', 'compare', f'--leaks={report}', '--json', *map(str, runs)]) == 0
        entry = json.loads(capsys.readouterr().out)['test']
        assert entry.keys() == {'hard/Dice', 'hard/IoU'}  # the scores that both have
        row = entry['hard/Dice']
        assert row['images'] == [2, 2]
        assert (row['near'], row['others']) == pytest.approx((0.75, 0.45))
        assert sorted(row['runs']) == pytest.approx([0.2, 0.4])


@pytest.mark.parametrize(
    ('pairs', 'words'),
    [
        ([], 'no test image has a near-duplicate in training'),
        ([(('t1', 'train'), ('stranger', 'test'))], "'stranger' of test is not scored"),
        ([(('t1', 'train'), ('stranger', 'elsewhere'))], 'none of its test sets with images near training is scored'),
    ],
)
def test_reports_of_other_data_are_one_line(tmp_path, capsys, pairs, words):
    _, (cell,) = study_of(tmp_path, variants('a'))
    write_run(cell, [0.9, 0.8])
    report = write_report(tmp_path / 'validate.json', pairs)
    assert main(['m2snet_jax', 'compare', f'--leaks={report}', str(cell.folder)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
    assert main(['m2snet_jax', 'compare', f'--leaks={cell.folder}/config.json', str(cell.folder)]) == 2
    assert 'not a validate.json' in capsys.readouterr().err
    assert main(['m2snet_jax', 'compare', f'--leaks={report}']) == 2
    assert 'takes one run or several' in capsys.readouterr().err
