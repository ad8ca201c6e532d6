"""Both protocols against what the official programs gave, case by case, as aggregates and along the curves."""

import json
from pathlib import Path

import numpy as np
import pytest

from m2snet_jax.metrics import aggregate, aggregate_all, pranet, released, score, score_all

FOLDER = Path(__file__).parents[1] / 'golden' / 'metrics'
SETS = sorted(path.stem for path in FOLDER.glob('golden_*.json'))
TIE, GREY_MASK = 'centroid_tie_small_17x23', 'grey_gt_127_128'


class Golden:
    def __init__(self, name):
        self.truth = json.loads((FOLDER / f'{name}.json').read_text())
        for part in (self.truth, self.truth['tolerances']):
            part['released'] = part.pop('reference')  # the goldens' word for it
        with np.load(FOLDER / f'{name}.npz') as arrays:
            self.arrays = dict(arrays)
        with np.load(FOLDER / f'{name}_curves.npz') as arrays:
            self.curves = dict(arrays)
        self.names = self.truth['names']
        self.pairs = [(self.arrays[f'pred_{i:02}'], self.arrays[f'gt_{i:02}']) for i in range(self.truth['n'])]
        self.scores = [score_all(*pair) for pair in self.pairs]

    def of(self, protocol, indices=None):
        return [self.scores[i][protocol] for i in (range(len(self.scores)) if indices is None else indices)]

    def tolerance(self, protocol, name):
        tolerances = self.truth['tolerances'][protocol]
        return tolerances.get(name, tolerances['default'])


@pytest.fixture(scope='module', params=SETS)
def golden(request):
    return Golden(request.param)


def assert_close(found, truth, tolerance, what):
    truth = float(truth)
    same = np.isnan(found) if np.isnan(truth) else abs(found - truth) <= tolerance
    assert same, f'{what}: {found!r}, official {truth!r}'


@pytest.mark.parametrize('protocol', ['released', 'pranet'])
def test_every_case_scores_as_the_official_program_scores_it(golden, protocol):
    for case, scores, truths in zip(golden.names, golden.of(protocol), golden.truth[protocol]['per_case'], strict=True):
        assert len(truths) >= 10
        for name, truth in truths.items():
            own_name = 'maxF' if name == 'maxF_single' else name
            assert_close(scores[own_name], truth, golden.tolerance(protocol, name), f'{case} {name}')


@pytest.mark.parametrize('protocol', ['released', 'pranet'])
@pytest.mark.parametrize('subset', ['all', 'regular'])
def test_aggregates_are_the_official_ones(golden, protocol, subset):
    indices = golden.truth[protocol]['regular_idx'] if subset == 'regular' else None
    truths = golden.truth[protocol][f'aggregate_{subset}']
    found = aggregate(golden.of(protocol, indices), protocol=protocol)
    assert set(found) == set(truths)
    for name, truth in truths.items():
        assert_close(found[name], truth, golden.tolerance(protocol, name), name)


def test_curves_are_the_official_ones(golden):
    for name in ('precision', 'recall'):
        found = np.stack([scores[name] for scores in golden.of('released')])
        np.testing.assert_allclose(found, golden.curves[f'ref_{name}'], rtol=0, atol=1e-12)
    for name in ('Dice', 'IoU', 'Em', 'Sen', 'Spe', 'Fm', 'Pre'):
        found = np.stack([scores[name] for scores in golden.of('pranet')])
        np.testing.assert_allclose(found, golden.curves[f'pranet_{name}'], rtol=0, atol=1e-11, equal_nan=True)


def test_shared_tables_change_nothing(golden):
    for pair, shared in zip(golden.pairs, golden.scores, strict=True):
        for protocol in ('released', 'pranet', 'hard'):
            alone = score(*pair, protocol=protocol)
            assert set(alone) == set(shared[protocol])
            for name, value in alone.items():
                np.testing.assert_array_equal(value, shared[protocol][name])


def test_aggregate_all_gives_each_figure_under_its_protocol(golden):
    found = aggregate_all(golden.scores)
    assert found['released/maxF'] == aggregate(golden.of('released'), 'released')['maxF']
    assert found['hard/Dice'] == aggregate(golden.of('hard'), 'hard')['Dice']
    assert found['pooled/Dice'] == aggregate(golden.of('hard'), 'hard')['pooled/Dice']
    assert found['lesion_free/count'] == sum(not mask.any() for _, mask in golden.pairs)
    assert all(name.count('/') == 1 for name in found)


def test_thresholds_are_those_of_matlab(golden):
    np.testing.assert_array_equal(pranet.THRESHOLDS, np.array(golden.truth['pranet']['thresholds'], float))


def test_fourteen_levels_of_a_full_range_map_miss_their_own_threshold():
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    recall = score(ramp, np.full((16, 16), 255, np.uint8), 'pranet')['Sen']
    passed = np.round(256 * recall).astype(int)
    late = [255 - threshold for threshold in range(256) if passed[threshold] != threshold + 1]
    assert late == [251, 235, 219, 218, 203, 202, 187, 186, 171, 170, 155, 154, 139, 138]


def test_maps_of_another_size_are_resized_as_pillow_does_by_default(golden):
    for index in range(2):
        small, mask, resized = (golden.arrays[f'rs_{name}_{index}'] for name in ('pred', 'gt', 'out'))
        np.testing.assert_array_equal(released.prepare(small, mask)[0], resized)
        for name, value in score(small, mask, 'released').items():
            np.testing.assert_array_equal(value, score(resized, mask, 'released')[name])
        # The same kernel, but for the border and for where it rounds.
        assert np.abs(pranet.imresize(small, mask.shape).astype(int) - resized).max() <= 1


def test_the_toolkit_that_the_authors_name_later_agrees_on_foreground_iou(golden):
    for scores, truth in zip(golden.of('released'), golden.truth['reference_pyseg']['per_case'], strict=True):
        assert_close(scores['IoU'], truth['IoU_f'], 1e-9, 'IoU_f')
        if not np.isnan(scores['BER']):
            assert_close(scores['BER'], truth['BER'], 1e-8, 'BER')


def test_pysodmetrics_agrees_where_it_computes_the_same(golden):
    for case, scores, other in zip(golden.names, golden.scores, golden.truth['pysodmetrics']['per_case'], strict=True):
        ours, official = scores['pranet'], scores['released']
        assert_close(ours['MAE'], other['MAE'], 1e-12, f'{case} MAE')
        assert_close(ours['wFm'], other['wFm'], 1e-12, f'{case} wFm')
        if case != TIE:
            assert_close(ours['Sm'], other['Sm'], 1e-12, f'{case} Sm')
        if case != GREY_MASK:
            assert_close(official['avgF'], other['adpFm_b03'], 1e-9, f'{case} adaptive F')
            assert_close(official['Em'], other['adpEm'], 1e-5, f'{case} adaptive E')


def test_pysodmetrics_differs_where_it_is_known_to(golden):
    others = golden.truth['pysodmetrics']['per_case']
    ours = golden.of('pranet')
    if TIE in golden.names:  # It rounds a centroid at one half to even, MATLAB up.
        index = golden.names.index(TIE)
        assert 0.01 < abs(ours[index]['Sm'] - float(others[index]['Sm'])) < 0.03
    if GREY_MASK in golden.names:  # For it level 128 of a mask is background, for the released program lesion.
        index = golden.names.index(GREY_MASK)
        assert abs(golden.of('released')[index]['avgF'] - float(others[index]['adpFm_b03'])) > 1e-3
    gaps = {name: [] for name in ('meanDic', 'meanIoU', 'meanEm', 'meanSpe')}
    for scores, other in zip(ours, others, strict=True):
        for name, values in gaps.items():
            values.append(float(other[name]) - scores[name])
    for name in ('meanDic', 'meanIoU', 'meanEm'):  # Some levels land one threshold off.
        assert 0 < np.abs(gaps[name]).max() <= 5e-4
    # It keeps the specificity where nothing is hit, which the toolbox sets to 0.
    regular = golden.truth['pranet']['regular_idx']
    assert 0.05 < np.mean(np.array(gaps['meanSpe'])[regular]) < 0.15
    if 'full_gt' in golden.names:
        full = golden.names.index('full_gt')
        assert np.isnan(ours[full]['meanSpe'])
        assert float(others[full]['meanSpe']) == 0


def test_pysodmetrics_curves_are_ours_but_for_levels_one_threshold_off(golden):
    for index, scores in enumerate(golden.of('pranet')):
        recall, other = scores['Sen'], golden.curves['pysod_Sen'][index]
        assert (other[:-1] <= recall[1:] + 1e-12).all()
        assert (other[1:] >= recall[:-1] - 1e-12).all()
        for name in ('Dice', 'IoU', 'Sen', 'Pre', 'Fm'):
            equal = np.abs(scores[name] - golden.curves[f'pysod_{name}'][index]) < 1e-12
            assert equal.mean() > 0.85, f'{golden.names[index]} {name}'


def test_wfm_of_the_eight_symmetries_spans_the_known_range(golden):
    for pair, span, scores in zip(
        golden.pairs, golden.truth['pranet']['wFm_tie_range'], golden.of('pranet'), strict=True
    ):
        if pair[0].size > 20000:
            continue
        turned = [
            score(np.rot90(turn(pair[0]), k), np.rot90(turn(pair[1]), k), 'pranet')['wFm']
            for turn in (np.asarray, np.transpose)
            for k in range(4)
        ]
        assert min(turned) == pytest.approx(float(span[0]), abs=1e-8)
        assert max(turned) == pytest.approx(float(span[1]), abs=1e-8)
        assert max(turned) - min(turned) <= 5e-4
        assert scores['wFm'] == pytest.approx(turned[0], abs=1e-12)
