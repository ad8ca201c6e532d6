"""The table and the page of a study, made of runs that are finished."""

import re

import numpy as np
import pytest
from scipy import stats
from study_files import study_of, variants, write_file, write_run

from m2snet_jax import InputError
from m2snet_jax.__main__ import main
from m2snet_jax.metrics.seeds import holm, seeds_and_images
from m2snet_jax.metrics.statistics import bootstrap_mean
from m2snet_jax.study import results as tables
from m2snet_jax.study.definition import base_config, cells_of, load_study
from m2snet_jax.study.results import study_table
from m2snet_jax.study.run_logs import epoch_losses, training_seconds
from m2snet_jax.study.study_page import write_study
from m2snet_jax.study.study_text import text


def test_means_and_differences_are_those_of_the_scores(tmp_path):
    rng = np.random.default_rng(0)
    study, cells = study_of(tmp_path, variants('a', 'b', seeds=(0, 1, 2), folds=(0, 1)))
    dice = rng.random((2, 3, 2, 5))  # variant, seed, fold, image
    for cell, values in zip(cells, dice.reshape(12, 5), strict=True):
        order = rng.permutation(5)  # of the rows, which must not matter
        write_run(cell, values[order], [f'fold{cell.fold}_{k}' for k in order])
    entry = study_table(study, cells)['test_sets']['test']
    for row, values in zip(entry['rows'], dice, strict=True):
        by_seed = values.reshape(3, 10).mean(1)
        assert row['scores']['hard/Dice']['mean'] == pytest.approx(by_seed.mean())
        assert row['scores']['hard/Dice']['deviation'] == pytest.approx(by_seed.std(ddof=1))
        assert list(row['scores']['hard/Dice']['seeds'].values()) == pytest.approx(list(by_seed))
        assert row['scores']['hard/IoU']['mean'] == pytest.approx(by_seed.mean() / 2)
        assert row['scores']['released/Dice']['mean'] == pytest.approx(
            by_seed.mean() * 10 / 12
        )  # and two free of lesions
        assert row['scores']['lesion_free/false_positive_share']['mean'] == 0.5
    by_fold = dice[0].mean((0, 2))  # of variant a
    names, figures = zip(*((row['name'], row['scores']['hard/Dice']) for row in entry['folds'][:3]), strict=True)
    assert names == ('a, fold 0', 'a, fold 1', 'a, mean ± deviation over folds')
    assert [one['mean'] for one in figures] == pytest.approx([*by_fold, by_fold.mean()])
    assert figures[0]['deviation'] == pytest.approx(dice[0, :, 0].mean(1).std(ddof=1))  # over seeds
    assert figures[2]['deviation'] == pytest.approx(by_fold.std(ddof=1))
    assert len(entry['folds']) == 6
    printed = [line for line in text(study_table(study, cells)).splitlines() if line.startswith('a, fold 1 ')]
    assert f' {by_fold[1]:.4f} ± ' in printed[0]
    (row,) = entry['differences']
    found, (before, after) = row['scores']['hard/Dice'], dice.reshape(2, 3, 10)
    assert (row['name'], row['against'], found['paired'], found['seeds']) == ('b', 'a', True, [3, 3])
    assert found['difference'] == pytest.approx(after.mean() - before.mean())
    expected = seeds_and_images(before, after, paired=True)
    assert (found['low'], found['high']) == pytest.approx((expected['low'], expected['high']), abs=0.02)
    assert found['by_seeds'] == pytest.approx(expected['by_seeds'])


def test_a_score_that_the_sheet_of_one_fold_lacks_has_no_mean_over_the_others(tmp_path):
    study, cells = study_of(tmp_path, variants('a', folds=(0, 1)))
    for cell in cells:
        write_run(cell, [0.2, 0.6], [f'fold{cell.fold}_{k}' for k in range(2)])
    sheet = cells[1].folder / 'scores' / 'per_image.csv'
    sheet.write_text(sheet.read_text().replace('released/Dice', 'released/other'))
    (row,) = study_table(study, cells)['test_sets']['test']['rows']
    assert 'released/Dice' not in row['scores']
    assert row['scores']['hard/Dice']['mean'] == pytest.approx(0.4)


def test_what_is_compared_while_a_study_is_under_way(tmp_path):
    study, cells = study_of(tmp_path, [*variants('a', 'b', seeds=(0, 1), folds=(0, 1))])
    by_place = {(cell.variant, cell.seed, cell.fold): cell for cell in cells}
    table = study_table(study, cells)
    assert table['test_sets'] == {}
    assert '0 of 8 runs finished' in text(table)
    write_run(by_place['a', 0, 0], [0.5, 0.6], ['p', 'q'])
    write_run(by_place['a', 0, 1], [0.7, 0.8], ['r', 's'])
    write_run(by_place['a', 1, 0], [0.9, 0.9], ['p', 'q'])
    write_run(by_place['b', 0, 1], [0.1, 0.2], ['r', 's'])
    entry = study_table(study, cells)['test_sets']['test']
    mean_of_a, mean_of_b = (row['scores']['hard/Dice'] for row in entry['rows'])
    assert (mean_of_a['mean'], mean_of_a['seeds'], mean_of_a['deviation']) == (pytest.approx(0.65), {'0': 0.65}, None)
    assert mean_of_b['mean'] == pytest.approx(0.15)
    found = entry['differences'][0]['scores']['hard/Dice']  # on fold 1, which both have
    assert (found['difference'], found['images'], found['low'], found['by_seeds']) == (
        pytest.approx(-0.6),
        2,
        None,
        None,
    )
    assert '(too few seeds)' in text(study_table(study, cells))


def test_seeds_without_a_common_fold_have_no_row_yet(tmp_path):
    study, cells = study_of(tmp_path, variants('a', 'b', seeds=(0, 1), folds=(0, 1)))
    by_place = {(cell.variant, cell.seed, cell.fold): cell for cell in cells}
    write_run(by_place['a', 0, 0], [0.5, 0.6], ['p', 'q'])
    write_run(by_place['a', 1, 1], [0.7, 0.8], ['r', 's'])
    table = study_table(study, cells)
    assert (table['runs']['finished'], table['test_sets']) == (2, {})
    write_study(table, tmp_path / 'runs')
    assert '2 of 8' in (tmp_path / 'runs' / 'study.html').read_text()
    write_run(by_place['a', 0, 1], [0.7, 0.8], ['r', 's'])
    assert study_table(study, cells)['test_sets']['test']['rows'][0]['scores']['hard/Dice']['seeds'] == {'0': 0.65}


def test_other_images_are_not_compared(tmp_path):
    study, cells = study_of(tmp_path, variants('a', 'b'))
    write_run(cells[0], [0.5, 0.6])
    write_run(cells[1], [0.5, 0.6], ['image0', 'stranger'], lesion_free=0)
    table = study_table(study, cells)
    assert table['test_sets']['test']['differences'] == []
    assert 'not compared, because their test images differ: b − a' in text(table)


def test_seeds_of_one_variant_with_other_images_are_refused(tmp_path):
    study, cells = study_of(tmp_path, variants('a', seeds=(0, 1)))
    write_run(cells[0], [0.5, 0.6])
    write_run(cells[1], [0.5, 0.6], ['image0', 'stranger'])
    with pytest.raises(InputError, match='seed 1 was scored on other images of test'):
        study_table(study, cells)


def test_folds_that_are_dealt_otherwise_are_compared_once_all_are_tested(tmp_path):
    study, cells = study_of(tmp_path, variants('a', 'b', folds=(0, 1)))
    names = [['p', 'q'], ['r', 's'], ['s', 'p'], ['q', 'r']]
    for number, cell in enumerate(cells[:3]):
        write_run(cell, [0.1, 0.5], names[number])
    assert study_table(study, cells)['test_sets']['test']['not_compared'] == []
    assert study_table(study, cells)['test_sets']['test']['differences'][0]['scores'].keys() == {
        'lesion_free/false_positive_share'
    }
    write_run(cells[3], [0.9, 0.5], names[3])
    entry = study_table(study, cells)['test_sets']['test']
    assert entry['rows'][1]['scores']['hard/Dice']['images'] == 4
    found = entry['differences'][0]['scores']['hard/Dice']
    assert (found['difference'], found['images']) == (pytest.approx(0.2), 4)


def test_time_and_losses_from_the_log(tmp_path):
    _, (cell,) = study_of(tmp_path, variants('a'))
    write_run(cell, [0.5])
    assert training_seconds(cell.folder) == 3 * 2 / 2.0 + 5 + 5 * 2 / 1.0
    assert epoch_losses(cell.folder) == pytest.approx([0.75 * 4 + 0.25 * 2, 2.0])
    assert training_seconds(tmp_path) is None
    assert epoch_losses(tmp_path) == []


def test_published_figures_stand_beside(tmp_path):
    study, cells = study_of(tmp_path, variants('a'), changes={'data.name': 'busi'})
    write_run(cells[0], [0.5, 0.6])
    table = study_table(study, cells)
    assert table['test_sets']['test']['published']['released/Dice']['M²SNet']['figure'] == '.7921±.0138'
    assert '.7921±.0138' in text(table)
    write_study(table, tmp_path)
    assert '.7921±.0138' in (tmp_path / 'study.html').read_text()


def headline(table, folder):
    """The text of the first card of the page of a study."""
    write_study(table, folder)
    page = (folder / 'study.html').read_text()
    assert page.index('class="headline"') < page.index('<table>')
    card = page.split('<div class="headline">')[1].split('</div>')[0]
    return ' '.join(re.sub('<[^>]*>', ' ', card).split())


def test_the_page_begins_with_the_main_difference(tmp_path):
    study, cells = study_of(tmp_path, variants('a', 'b', 'c', seeds=(0, 1, 2)))
    for cell in cells[:3]:
        write_run(cell, np.linspace(0.1, 0.5, 20) + 0.01 * cell.seed)
    words = headline(study_table(study, cells), tmp_path)
    assert words.startswith('a, test set test 0.3100 ± 0.0100 hard/Dice Mean over 20 images and 3 seeds.')
    for cell in cells[3:]:
        write_run(cell, np.linspace(0.4, 0.8, 20) + 0.02 * cell.seed)
    table = study_table(study, cells)
    found = table['test_sets']['test']['differences'][0]['scores']['hard/Dice']
    assert headline(table, tmp_path) == (
        f'b − a, test set test +0.310 hard/Dice, 95 % interval {found["low"]:+.3f} … {found["high"]:+.3f} '
        '20 images, 3 seeds against 3, paired. The interval excludes 0.'
    )
    found['low'] = -0.001
    assert 'The interval includes 0: no difference is shown.' in headline(table, tmp_path)


def test_the_table_alone_trains_nothing(tmp_path, capsys, monkeypatch):
    path = write_file(tmp_path, {'config': 'quickstart', 'about': '', 'variants': variants('a', 'b')})
    study = load_study(path)
    write_run(cells_of(study, base_config(study), tmp_path / 'runs')[0], [0.5, 0.6])
    arguments = ['m2snet_jax', 'study', f'--config={path}', f'--workdir={tmp_path}/runs', '--table']
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert '1 of 2 runs finished' in out
    assert '0.5500' in out
    assert not (tmp_path / 'runs/b').exists()
    monkeypatch.setattr(tables, 'RESAMPLES', 2)
    assert main([*arguments, '--config.batch=9']) == 0  # each variant has a batch of its own
    assert main([*arguments, '--config.epochs=9']) == 2
    assert 'changed: epochs 10 → 9' in capsys.readouterr().err


def test_the_interval_is_welchs_joined_with_the_bootstraps():
    rng = np.random.default_rng(2)
    first, second = rng.random((4, 30)), rng.random((2, 30))
    found = seeds_and_images(first, second, resamples=500, seed=1)
    welch = stats.ttest_ind(second.mean(1), first.mean(1), equal_var=False).confidence_interval(0.95)
    low, high = bootstrap_mean(second.mean(0) - first.mean(0), resamples=500, seed=1)
    difference = second.mean() - first.mean()
    assert found['difference'] == pytest.approx(difference)
    assert found['by_images'] == (low, high)
    assert found['low'] == pytest.approx(difference - np.hypot(difference - welch.low, difference - low))
    assert found['high'] == pytest.approx(difference + np.hypot(welch.high - difference, high - difference))
    paired = seeds_and_images(first[:2], second, paired=True, resamples=500)
    t = stats.ttest_rel(second.mean(1), first[:2].mean(1)).confidence_interval(0.95)
    assert paired['by_seeds'] == pytest.approx((t.high - t.low) / 2)
    assert np.isnan(seeds_and_images(first, second[:1])['low'])


def test_the_p_value_is_that_of_t_where_images_do_not_differ():
    rng = np.random.default_rng(3)
    first, second = (rng.normal(mean, 0.1, (6, 1)) + np.linspace(0, 0.5, 8) for mean in (0.0, 0.15))
    for paired, test in ((True, stats.ttest_rel(second[:, 0], first[:, 0])),
                         (False, stats.ttest_ind(second[:, 0], first[:, 0], equal_var=False))):  # fmt: skip
        found = seeds_and_images(first, second, paired=paired, resamples=50)
        assert found['p_value'] == pytest.approx(test.pvalue, abs=2e-6)
        at = seeds_and_images(first, second, paired=paired, resamples=50, level=1 - found['p_value'])
        assert at['low'] == pytest.approx(0, abs=1e-5)
    assert seeds_and_images(first, first, paired=True, resamples=50)['p_value'] == 1
    assert np.isnan(seeds_and_images(first, second[:1], resamples=50)['p_value'])


def test_holms_correction():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.4, 0.9]) == pytest.approx([1, 1, 1])
    assert holm([0.02]) == [0.02]
    assert holm([0.01, 0.01]) == pytest.approx([0.02, 0.02])
    assert holm([]) == []


def test_claims_are_supported_contradicted_or_undecided(tmp_path):
    rng = np.random.default_rng(4)
    shift = {'full': 0.5, 'less': 0.3, 'more': 0.7, 'same': 0.5}
    claims = {'less': 'lower', 'more': 'lower', 'same': 'lower'}
    mine = [
        {'name': name, 'about': '', 'changes': {'batch': 2 + k}, 'seeds': tuple(range(5)), 'claim': claims.get(name)}
        for k, name in enumerate([*shift, 'open'])
    ]
    mine[-1]['claim'] = 'lower'
    study, cells = study_of(tmp_path, mine)
    images = rng.normal(0, 0.02, 20)
    for cell in cells[:-5]:
        write_run(cell, shift[cell.variant] + images + rng.normal(0, 0.01) + rng.normal(0, 0.01, 20))
    table = study_table(study, cells)
    assert [(row['name'], row['verdict']) for row in table['claims']] == [
        ('less', 'supported'), ('more', 'contradicted'), ('same', 'undecided'), ('open', 'undecided')
    ]  # fmt: skip
    values = [row['p_value'] for row in table['claims']]
    assert values[3] is None
    assert [row['corrected'] for row in table['claims']] == pytest.approx(holm([*values[:3], 1.0]))
    shown = text(table)
    assert '4 claims about hard/Dice' in shown
    assert 'less lower than full, test' in shown
    write_study(table, tmp_path / 'runs')
    assert 'more lower than full, test' in (tmp_path / 'runs' / 'study.html').read_text()


@pytest.mark.parametrize(
    ('seeds', 'paired', 'spread'),
    [
        ((4, 4), True, (0.05, 0.05, 0.2)),  # as seen: seeds move more than images, most is special to both
        ((4, 4), True, (0.0, 0.2, 0.05)),  # images alone
        ((4, 2), False, (0.05, 0.0, 0.001)),  # seeds alone
        ((4, 2), False, (0.01, 0.1, 0.1)),
    ],
)
def test_the_interval_covers_the_truth_in_19_of_20_studies_or_more(seeds, paired, spread):
    rng, studies, held = np.random.default_rng(0), 300, 0
    of_seed, of_image, of_both = spread
    for number in range(studies):
        easy = rng.normal(0.6, 0.2, 40)
        runs = [
            easy
            + rng.normal(0, of_image / np.sqrt(2), 40)
            + rng.normal(0, of_seed, (count, 1))
            + rng.normal(0, of_both, (count, 40))
            for count in seeds
        ]
        found = seeds_and_images(*runs, paired=paired, resamples=200, seed=number)
        held += found['low'] <= 0 <= found['high']
    assert held / studies >= 0.93  # two standard errors of 300 draws below 0.955
