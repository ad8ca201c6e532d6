"""Scores at one half: closed forms, distances by brute force, and what empty masks mean."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from m2snet_jax.errors import InputError
from m2snet_jax.metrics import aggregate, aggregate_all, class_mean, class_pairs, hard, score, score_all


def square(top, left, side, shape=(40, 50)):
    mask = np.zeros(shape, np.uint8)
    mask[top : top + side, left : left + side] = 255
    return mask


EMPTY = np.zeros((40, 50), np.uint8)


def test_overlap_of_two_squares():
    scores = score(square(10, 10, 10), square(10, 15, 10), 'hard')
    assert (scores['TP'], scores['FP'], scores['FN'], scores['TN']) == (50, 50, 50, 1850)
    expected = {
        'Dice': 0.5,
        'IoU': 1 / 3,
        'precision': 0.5,
        'recall': 0.5,
        'specificity': 1850 / 1900,
        'accuracy': 0.95,
    }
    assert {name: scores[name] for name in expected} == pytest.approx(expected)
    assert scores['MAE'] == 0.05


def test_the_cut_is_at_128_and_the_map_is_not_stretched():
    mask = square(0, 0, 20)
    assert score(np.full_like(mask, 127), mask, 'hard')['TP'] == 0
    assert score(np.full_like(mask, 128), mask, 'hard')['TP'] == 400
    faint = (mask // 255 * 60).astype(np.uint8)
    assert score(faint, mask, 'hard')['Dice'] == 0
    assert score(faint, mask, 'hard')['MAE'] == pytest.approx(400 * (195 / 255) / 2000)


def test_two_pixels_are_as_far_as_they_are():
    scores = score(square(3, 4, 1), square(6, 8, 1), 'hard')
    assert scores['HD95'] == scores['ASSD'] == 5


def test_a_square_within_a_square():
    scores = score(square(10, 10, 20), square(12, 12, 16), 'hard')
    # From the outer surface: 4 corners at sqrt(8), 8 beside them at sqrt(5), 64 at 2; from the inner: 60 at 2.
    assert scores['HD95'] == pytest.approx(np.sqrt(5) + 0.25 * (np.sqrt(8) - np.sqrt(5)))
    assert scores['ASSD'] == pytest.approx((4 * np.sqrt(8) + 8 * np.sqrt(5) + 64 * 2 + 60 * 2) / 136)


def brute_force(first, second):
    def surface(mask):
        padded = np.pad(mask, 1)
        return [
            (row, column)
            for row, column in np.argwhere(mask)
            if not (
                padded[row, column + 1]
                and padded[row + 2, column + 1]
                and padded[row + 1, column]
                and padded[row + 1, column + 2]
            )
        ]

    def distances(points, others):
        return [min(np.hypot(r - row, c - column) for r, c in others) for row, column in points]

    one, other = surface(first), surface(second)
    there, back = distances(one, other), distances(other, one)
    return max(np.percentile(there, 95), np.percentile(back, 95)), np.mean(there + back)


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(st.tuples(st.integers(1, 10), st.integers(1, 10)).flatmap(lambda shape: arrays(bool, (2, *shape))))
def test_distances_are_those_of_brute_force(masks):
    first, second = masks
    found = hard.surface_distances(first, second)
    if first.any() and second.any():
        assert found == pytest.approx(brute_force(first, second))
    else:
        assert found == ((np.inf, np.inf) if first.any() or second.any() else (0, 0))


def test_empty_masks_and_maps():
    both, missed, false = (
        score(EMPTY, EMPTY, 'hard'),
        score(EMPTY, square(0, 0, 4), 'hard'),
        score(square(0, 0, 4), EMPTY, 'hard'),
    )
    assert both['Dice'] == both['IoU'] == both['accuracy'] == both['specificity'] == 1
    assert both['HD95'] == both['ASSD'] == 0
    assert missed['Dice'] == missed['IoU'] == missed['precision'] == missed['recall'] == 0
    assert false['Dice'] == false['IoU'] == false['precision'] == 0
    for scores in (missed, false):
        assert scores['HD95'] == scores['ASSD'] == np.inf
    for scores in (both, false):
        assert np.isnan(scores['recall'])
    assert np.isnan(both['precision'])
    full = np.full_like(EMPTY, 255)
    assert np.isnan(score(full, full, 'hard')['specificity'])


def test_means_run_over_lesions_and_the_others_stand_apart():
    mask = square(10, 10, 10)
    pairs = [(mask, mask), (square(10, 15, 10), mask), (EMPTY, EMPTY), (square(0, 0, 20), EMPTY), (EMPTY, EMPTY)]
    scores = [score(*pair, 'hard') for pair in pairs]
    found = aggregate(scores, 'hard')
    assert found['Dice'] == pytest.approx(0.75)
    assert found['IoU'] == pytest.approx(2 / 3)
    assert found['precision'] == found['recall'] == pytest.approx(0.75)
    assert found['MAE'] == pytest.approx(0.025)
    assert (found['count'], found['missed'], found['lesion_free/count']) == (2, 0, 3)
    assert found['lesion_free/false_positive_share'] == pytest.approx(1 / 3)
    assert found['lesion_free/false_positive_area'] == pytest.approx(400 / 2000 / 3)
    # Pooled counts are of all five images: TP 150, FP 450, FN 50.
    assert found['pooled/Dice'] == pytest.approx(300 / 800)
    assert found['pooled/IoU'] == pytest.approx(150 / 650)
    assert found['pooled/precision'] == pytest.approx(150 / 600)
    assert found['pooled/recall'] == pytest.approx(150 / 200)
    assert found['pooled/accuracy'] == pytest.approx(1 - 500 / 10000)
    assert found['HD95'] == found['HD95_found'] == pytest.approx(scores[1]['HD95'] / 2)


def test_a_missed_lesion_is_infinitely_far_and_counted():
    mask = square(10, 10, 10)
    found = aggregate([score(mask, mask, 'hard'), score(EMPTY, mask, 'hard')], 'hard')
    assert found['HD95'] == found['ASSD'] == np.inf
    assert found['HD95_found'] == found['ASSD_found'] == 0
    assert (found['count'], found['missed']) == (2, 1)
    assert found['Dice'] == 0.5


def test_without_any_lesion_there_is_no_mean():
    found = aggregate([score(EMPTY, EMPTY, 'hard')] * 2, 'hard')
    assert np.isnan(found['Dice'])
    assert found['lesion_free/count'] == 2
    assert found['lesion_free/false_positive_share'] == 0


def test_a_map_of_another_size_is_resized_as_the_released_program_resizes_its_own():
    image = pytest.importorskip('PIL.Image')
    small = np.random.default_rng(0).integers(0, 256, (20, 25), dtype=np.uint8)
    resized = np.asarray(image.fromarray(small).resize((50, 40), image.Resampling.BILINEAR))
    mask = square(5, 5, 20)
    assert score(small, mask, 'hard') == score(resized, mask, 'hard')


def test_classes_are_scored_one_by_one():
    classes = np.zeros((40, 50), np.uint8)
    classes[:10], classes[10:30] = 1, 3
    maps = np.stack([np.where(classes == index, 255, 0).astype(np.uint8) for index in (1, 2, 3)], axis=2)
    maps[:5, :, 0] = 0
    pairs = class_pairs(maps, classes)
    summaries = [aggregate([score(*pair, 'hard')], 'hard') for pair in pairs]
    assert summaries[0]['Dice'] == pytest.approx(2 / 3)
    assert np.isnan(summaries[1]['Dice'])
    assert summaries[2]['Dice'] == 1
    assert class_mean([summaries[0], summaries[2]])['Dice'] == pytest.approx(5 / 6)
    assert np.isnan(class_mean(summaries)['Dice']), 'a class that never occurs has no Dice, nor has the mean'
    assert 'count' not in class_mean(summaries)
    everything = [aggregate_all([score_all(*pair)]) for pair in pairs]
    assert {'hard/count', 'hard/missed', 'lesion_free/count'} <= everything[0].keys()
    assert not {'hard/count', 'hard/missed', 'lesion_free/count'} & class_mean(everything).keys()
    one_mask_each = np.stack([pair[1] for pair in pairs], axis=2)
    for (_, mask), (_, again) in zip(pairs, class_pairs(maps, one_mask_each), strict=True):
        np.testing.assert_array_equal(mask, again)


@pytest.mark.parametrize(
    ('maps', 'mask', 'words'),
    [((4, 4), (4, 4), 'hand over maps'), ((4, 4, 2), (4, 4, 3), '3 classes and prediction 2')],
)
def test_classes_and_maps_must_match(maps, mask, words):
    with pytest.raises(InputError, match=words):
        class_pairs(np.zeros(maps, np.uint8), np.zeros(mask, np.uint8))


def test_a_class_without_a_map_is_named():
    with pytest.raises(InputError, match='class 3 and prediction maps for 1 to 2'):
        class_pairs(np.zeros((4, 4, 2), np.uint8), np.full((4, 4), 3, np.uint8))
