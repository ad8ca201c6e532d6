"""Both protocols against pysodmetrics as it runs now, on pairs that are in no golden file.

Its releases ask for an older OpenCV than the package does, though what they use of it has not changed:

    pip install scikit-image scikit-learn && pip install --no-deps pysodmetrics
"""

import cv2
import numpy as np
import pytest

from m2snet_jax.metrics import score_all

sod = pytest.importorskip('py_sod_metrics', reason='pip install --no-deps pysodmetrics')


def pair(seed):
    """A map, uint8 [H, W], that finds a blob more or less well, and the mask of the blob."""
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(40, 120, 2))
    noise = rng.standard_normal((2, *shape))
    field, other = (cv2.GaussianBlur(part, (0, 0), 8) for part in noise)
    lesion = field > np.quantile(field, rng.uniform(0.6, 0.95))
    belief = field + rng.uniform(0, 1) * other - np.quantile(field, 0.8)
    return (255 / (1 + np.exp(-belief / belief.std() * 3))).astype(np.uint8), np.where(lesion, 255, 0).astype(np.uint8)


def second_opinion(prediction, mask):
    """What pysodmetrics gives for one pair, by our names."""
    measures = [sod.MAE(), sod.Smeasure(), sod.WeightedFmeasure(), sod.Emeasure()]
    handlers = {
        'Fm': sod.FmeasureHandler(beta=0.3, with_adaptive=True, with_dynamic=True),
        'Dic': sod.DICEHandler(with_adaptive=False, with_dynamic=True),
        'IoU': sod.IOUHandler(with_adaptive=False, with_dynamic=True),
        'Sen': sod.RecallHandler(with_adaptive=False, with_dynamic=True),
        'Spe': sod.SpecificityHandler(with_adaptive=False, with_dynamic=True),
    }
    for measure in (*measures, dynamic := sod.FmeasureV2(metric_handlers=handlers)):
        measure.step(prediction, mask)
    mae, structure, weighted, alignment = (measure.get_results() for measure in measures)
    found = {'MAE': mae['mae'], 'Sm': structure['sm'], 'wFm': weighted['wfm'], 'adaptive Em': alignment['em']['adp']}
    curves = dynamic.get_results()
    found['adaptive F'] = curves['Fm']['adaptive']
    return found, {name: curves[name]['dynamic'] for name in handlers if name != 'Fm'}


PAIRS = [pair(seed) for seed in range(12)]


@pytest.mark.parametrize('index', range(len(PAIRS)))
def test_it_agrees_where_it_computes_the_same(index):
    ours, (theirs, _) = score_all(*PAIRS[index]), second_opinion(*PAIRS[index])
    for name in ('MAE', 'Sm', 'wFm'):
        assert ours['pranet'][name] == pytest.approx(theirs[name], abs=1e-12)
    assert ours['released']['avgF'] == pytest.approx(theirs['adaptive F'], abs=1e-9)
    assert ours['released']['Em'] == pytest.approx(theirs['adaptive Em'], abs=1e-5)


@pytest.mark.parametrize('index', range(len(PAIRS)))
def test_its_curves_are_ours_but_for_levels_one_threshold_off(index):
    ours, (_, theirs) = score_all(*PAIRS[index])['pranet'], second_opinion(*PAIRS[index])
    recall, other = ours['Sen'], theirs['Sen']
    assert (other[:-1] <= recall[1:] + 1e-12).all()
    assert (other[1:] >= recall[:-1] - 1e-12).all()
    for name, curve in (('Dic', ours['Dice']), ('IoU', ours['IoU'])):
        assert np.abs(theirs[name] - curve).mean() <= 1e-3


def test_it_keeps_the_specificity_where_nothing_is_hit():
    mask, prediction = np.zeros((2, 40, 40), np.uint8)
    mask[10:20, 10:20], prediction[30:40, 30:40] = 255, 255
    ours, (_, theirs) = score_all(prediction, mask)['pranet'], second_opinion(prediction, mask)
    assert ours['Sen'][0] == theirs['Sen'][0] == 0
    assert (ours['Spe'][0], theirs['Spe'][0]) == (0, pytest.approx(1 - 100 / 1500))
