"""The command `compare`: two runs paired image by image."""

import csv
import json

import numpy as np
import pytest
from scipy import stats

from m2snet_jax import InputError, metrics
from m2snet_jax.__main__ import main
from m2snet_jax.evaluation.comparison import compare_means, compare_runs
from m2snet_jax.metrics.statistics import interval, resample, signed_rank, stack, subtract


def masks_and_maps(quality, seed=0, count=12):
    """Maps that come nearer to their masks with `quality`; the last mask is empty."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        rows, columns = np.mgrid[:30, :40]
        mask = np.where((rows - 15) ** 2 + (columns - 20) ** 2 < 20 + 8 * number, 255, 0).astype(np.uint8)
        if number == count - 1:
            mask[:] = 0
        noise = rng.normal(90, 60, mask.shape)
        yield np.clip(quality * mask + (1 - quality) * noise, 0, 255).astype(np.uint8), mask


def write_run(folder, pairs, names=None, test_set='test'):
    """Writes the sheet that scoring these pairs leaves, and returns the scores."""
    (folder / 'scores').mkdir(parents=True)
    scores, rows = [], []
    for number, pair in enumerate(pairs):
        scores.append(metrics.score_all(*pair))
        name = names[number] if names else f'image{number}'
        row = {'set': test_set, 'name': name, 'class': 1}
        for protocol, figures in scores[-1].items():
            row |= {f'{protocol}/{key}': value for key, value in figures.items() if np.ndim(value) == 0}
        rows.append(row)
    with (folder / 'scores' / 'per_image.csv').open('w', newline='') as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    summary = {'warnings': [f'beware of {folder.name}'], 'scores': {}}
    (folder / 'scores' / 'summary.json').write_text(json.dumps(summary))
    return scores


@pytest.fixture
def runs(tmp_path):
    worse = write_run(tmp_path / 'worse', masks_and_maps(0.3))
    better = write_run(tmp_path / 'better', masks_and_maps(0.8, seed=1))
    return tmp_path / 'worse', tmp_path / 'better', worse, better


@pytest.mark.parametrize('protocol', ['released', 'pranet', 'hard'])
def test_figures_and_intervals_are_those_of_the_score_sheets(runs, protocol):
    first, second, *scores = runs
    lists = [[one[protocol] for one in run] for run in scores]
    before, after = (metrics.aggregate(run, protocol) for run in lists)
    lesions = np.array([one['hard']['TP'] + one['hard']['FN'] > 0 for one in scores[0]])
    chosen = lesions if protocol == 'hard' else np.ones(len(lesions), bool)
    stacked = [{name: values[chosen] for name, values in stack(run).items()} for run in lists]
    clusters = np.arange(chosen.sum())
    drawn = resample(stacked, protocol, clusters, 300, 3)
    table = compare_runs(first, second, resamples=300, seed=3)['test']
    assert (table['images'], table['resampled']) == (12, 'images')
    rows = {name.partition('/')[2]: row for name, row in table['scores'].items() if name.startswith(f'{protocol}/')}
    assert {'Dice', 'meanDic'} & set(rows)
    for name, row in rows.items():
        difference = float(subtract(after[name], before[name]))
        low, high = interval(difference, subtract(drawn[1][name], drawn[0][name]), clusters, 0.95)
        pair = (np.array([one[name] for one in run])[chosen] for run in lists)
        p_value = signed_rank(subtract(*pair), clusters)
        expected = {'first': before[name], 'second': after[name], 'difference': difference, 'low': low, 'high': high}
        assert row == pytest.approx({**expected, 'p_value': p_value}, abs=1e-12, nan_ok=True), name


def test_a_better_run_is_found_better_and_maxima_are_left_out(runs):
    first, second, _, _ = runs
    scores = compare_runs(first, second)['test']['scores']
    assert scores['hard/Dice']['low'] > 0
    assert scores['hard/Dice']['p_value'] < 0.01
    assert scores['released/MAE']['high'] < 0
    assert np.isnan(scores['released/BER']['difference'])  # the image without a lesion has none
    assert not {'released/maxF', 'pranet/maxDic', 'hard/count'} & set(scores)


def test_wilcoxon_and_the_interval_are_scipys():
    rng = np.random.default_rng(0)
    first, second = rng.normal(0.5, 0.1, 200), rng.normal(0.52, 0.1, 200)
    row = compare_means(first, second, resamples=9999, seed=1)
    assert row['p_value'] == stats.wilcoxon(second - first).pvalue
    plain = stats.bootstrap((second - first,), np.mean, method='percentile', rng=np.random.default_rng(2))
    assert row['low'] == pytest.approx(plain.confidence_interval.low, abs=1.5e-3)
    assert row['high'] == pytest.approx(plain.confidence_interval.high, abs=1.5e-3)


def test_the_interval_covers_a_difference_as_often_as_it_says():
    rng, covered = np.random.default_rng(5), 0
    for _ in range(400):
        easy = rng.normal(0.7, 0.2, 30)  # what both runs find easy or hard alike
        first, second = easy + rng.normal(0, 0.05, 30), easy + rng.normal(0.02, 0.05, 30)
        row = compare_means(first, second, resamples=400, seed=int(rng.integers(2**31)))
        covered += row['low'] <= 0.02 <= row['high']
    assert 0.92 <= covered / 400 <= 0.98


def test_a_run_compared_with_itself_does_not_differ(runs):
    first, _, _, _ = runs
    for row in compare_runs(first, first)['test']['scores'].values():
        if not np.isnan(row['first']):
            assert (row['difference'], row['low'], row['high'], row['p_value']) == (0, 0, 0, 1)


def test_the_same_seed_gives_the_same_interval_and_frames_go_by_clip(tmp_path):
    names = [f'clip{number // 4}/{number}' for number in range(12)]
    for name, quality in (('a', 0.4), ('b', 0.5)):
        write_run(tmp_path / name, masks_and_maps(quality), names)
    one, two = (compare_runs(tmp_path / 'a', tmp_path / 'b', resamples=100, seed=7) for _ in range(2))
    assert repr(one) == repr(two)
    assert one['test']['resampled'] == 'clips'


def test_images_are_paired_by_name_not_by_order(runs, tmp_path):
    first, second, _, _ = runs
    pairs = list(masks_and_maps(0.8, seed=1))[::-1]
    write_run(tmp_path / 'turned', pairs, [f'image{number}' for number in range(12)][::-1])
    assert repr(compare_runs(first, tmp_path / 'turned')) == repr(compare_runs(first, second))


def test_what_cannot_be_compared_is_refused(runs, tmp_path):
    first, _, _, _ = runs
    write_run(tmp_path / 'fewer', list(masks_and_maps(0.5))[:-1])
    with pytest.raises(InputError, match=r"fewer: 1 images of test are not scored there, e\.g\. 'image11'"):
        compare_runs(first, tmp_path / 'fewer')
    flipped = [(prediction, 255 - mask) for prediction, mask in masks_and_maps(0.5)]
    write_run(tmp_path / 'flipped', flipped)
    with pytest.raises(InputError, match="'image0' was scored on another mask"):
        compare_runs(first, tmp_path / 'flipped')
    write_run(tmp_path / 'other', masks_and_maps(0.5), test_set='other')
    with pytest.raises(InputError, match='none in common'):
        compare_runs(first, tmp_path / 'other')


def test_the_command(runs, capsys):
    first, second, _, _ = runs
    assert main(['', 'compare', str(first), str(second), '--resamples=100']) == 0
    out, error = capsys.readouterr()
    assert 'test: 12 images, resampled by images' in out
    assert 'beware of worse' in error
    assert 'beware of better' in error
    assert 'hard/Dice' in out
    assert main(['', 'compare', str(first), str(second), '--resamples=100', '--json']) == 0
    table = json.loads(capsys.readouterr().out)
    assert table['test']['scores']['released/BER']['first'] == 'nan'
    for arguments in ([str(first)], [str(first), 'nowhere'], [str(first), str(second), '--resamples=0']):
        assert main(['', 'compare', *arguments]) == 2
        assert capsys.readouterr().err.startswith('error: ')
    with pytest.raises(SystemExit):
        main(['', 'compare', '--help'])
    assert '--resamples' in capsys.readouterr().out


def test_a_score_that_one_sheet_lacks_is_left_out(runs):
    first, second, *_ = runs
    path = first / 'scores' / 'per_image.csv'
    with path.open(newline='') as file:
        rows = list(csv.DictReader(file))
    with path.open('w', newline='') as file:
        writer = csv.DictWriter(file, [key for key in rows[0] if key != 'hard/accuracy'], extrasaction='ignore')
        writer.writeheader()
        writer.writerows(rows)
    scores = compare_runs(first, second, resamples=10)['test']['scores']
    assert 'hard/accuracy' not in scores
    assert {'hard/Dice', 'released/MAE', 'pranet/meanDic'} <= scores.keys()
