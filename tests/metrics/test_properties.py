"""What no protocol's score may depend on, and what perfect and inverted maps must score."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from m2snet_jax.metrics import pranet, score, score_all

examples = settings(max_examples=60, deadline=None, derandomize=True, database=None)
sides = st.integers(2, 24)
SYMMETRIES = [(transpose, turns) for transpose in (False, True) for turns in range(4)]


@st.composite
def pairs(draw, highest=255):
    shape = draw(st.tuples(sides, sides))
    levels = st.integers(0, highest)
    prediction = draw(arrays(np.uint8, shape, elements=levels, fill=levels))
    return prediction, draw(masks(shape))


@st.composite
def masks(draw, shape):
    mask = draw(arrays(np.uint8, shape, elements=st.sampled_from([0, 255]), fill=st.just(0)))
    assume(mask.any() and not mask.all())
    return mask


def blobs(seed, height=70, width=90):
    """A smooth map and a mask that it meets in part, as of a real lesion."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    row, column = generator.uniform(0.3, 0.7, 2) * (height, width)
    mask = np.hypot((y - row) / 1.3, x - column) < generator.uniform(8, 20)
    shift = generator.uniform(-5, 5, 2)
    distance = np.hypot((y - row - shift[0]) / 1.3, x - column - shift[1])
    prediction = 1 / (1 + np.exp((distance - generator.uniform(8, 20)) / generator.uniform(0.5, 4)))
    prediction += generator.normal(0, 0.02, mask.shape)
    return np.round(np.clip(prediction, 0, 1) * 255).astype(np.uint8), np.where(mask, 255, 0).astype(np.uint8)


def assert_same(found, truth, but=(), tolerance=1e-12):
    for name in set(truth) - set(but):
        np.testing.assert_allclose(found[name], truth[name], rtol=0, atol=tolerance, equal_nan=True, err_msg=name)


@examples
@given(st.tuples(sides, sides).flatmap(masks))
def test_a_perfect_map(mask):
    scores = score_all(mask, mask)
    pixels, share = mask.size, (mask > 0).mean()
    official, toolbox, hard = scores['released'], scores['pranet'], scores['hard']
    for name in ('avgF', 'Dice', 'IoU', 'Acc'):
        assert official[name] == 1
    assert official['MAE'] == official['BER'] == toolbox['MAE'] == hard['MAE'] == 0
    assert official['maxF'] == pytest.approx(1, abs=1e-6)
    assert official['wFm'] == pytest.approx(1, abs=1e-5)
    assert toolbox['wFm'] == pytest.approx(1, abs=1e-12)
    assert official['Em'] == pytest.approx(pixels / (pixels - 1), abs=2e-3)
    assert toolbox['maxEm'] == pytest.approx(pixels / (pixels - 1), rel=1e-9)
    # Every threshold but 0 cuts out the mask itself; 0 takes the whole image.
    assert toolbox['meanDic'] == pytest.approx((255 + 2 * share / (1 + share)) / 256)
    assert toolbox['meanIoU'] == pytest.approx((255 + share) / 256)
    assert toolbox['meanSpe'] == pytest.approx(255 / 256)
    assert toolbox['maxDic'] == toolbox['meanSen'] == 1
    for name in ('Dice', 'IoU', 'precision', 'recall', 'specificity', 'accuracy'):
        assert hard[name] == 1
    assert hard['HD95'] == hard['ASSD'] == 0
    assert toolbox['Sm'] == pytest.approx(1, abs=1e-6, nan_ok=True) or np.isnan(toolbox['Sm'])
    # Its 1e-8 outweighs blocks of a few lesion pixels; mixed variances lift the others above 1.
    assert np.isnan(official['Sm']) or 0.5 < official['Sm'] < 2


@examples
@given(st.tuples(sides, sides).flatmap(masks))
def test_an_inverted_map(mask):
    scores = score_all(255 - mask, mask)
    official, toolbox, hard = scores['released'], scores['pranet'], scores['hard']
    assert official['MAE'] == official['BER'] == toolbox['MAE'] == hard['MAE'] == 1
    assert official['avgF'] == official['Acc'] == 0
    assert 0 <= official['IoU'] < 1e-5
    assert 0 <= official['Dice'] < 1e-5
    # Zeros beyond the image lower the averaged errors near its border; three pixels inside, nothing is left of wFm.
    assert toolbox['wFm'] < 1
    inside = np.pad(mask, 3)
    assert score_all(255 - inside, inside)['pranet']['wFm'] == pytest.approx(0, abs=1e-12)
    share = (mask > 0).mean()
    # Only threshold 0 hits, with the whole image.
    assert toolbox['meanDic'] == pytest.approx(2 * share / (1 + share) / 256)
    assert np.isnan(toolbox['Sm']) or toolbox['Sm'] >= 0
    for name in ('Dice', 'IoU', 'precision', 'recall', 'specificity', 'accuracy'):
        assert hard[name] == 0


@examples
@given(pairs(), st.sampled_from(SYMMETRIES[1:]))
def test_flips_and_rotations_change_only_the_blocks_of_sm_and_the_ties_of_wfm(pair, symmetry):
    transpose, turns = symmetry
    turned = [np.rot90(array.T if transpose else array, turns) for array in pair]
    before, after = score_all(*pair), score_all(*turned)
    for protocol in before:
        assert_same(after[protocol], before[protocol], but=('Sm', 'wFm'))
    if (transpose, turns) == (True, 0):
        # Rows and columns are treated alike: a transposed pair has the transposed blocks.
        for protocol in ('released', 'pranet'):
            assert_same({'Sm': after[protocol]['Sm']}, {'Sm': before[protocol]['Sm']})


@pytest.mark.parametrize('seed', range(12))
def test_flips_and_rotations_of_a_lesion_change_sm_and_wfm_little(seed):
    prediction, mask = blobs(seed)
    before = score_all(prediction, mask)
    for transpose, turns in SYMMETRIES:
        turned = [np.rot90(array.T if transpose else array, turns) for array in (prediction, mask)]
        after = score_all(*turned)
        for protocol in ('released', 'pranet'):
            # The released border lies one pixel beyond the centroid, so a flip moves it by a pixel.
            assert abs(after[protocol]['Sm'] - before[protocol]['Sm']) < 0.01
            assert abs(after[protocol]['wFm'] - before[protocol]['wFm']) < 5e-4


@examples
@given(pairs(highest=100), st.integers(0, 55), st.sampled_from([1, 2]))
def test_what_is_stretched_does_not_see_offset_and_gain(pair, offset, gain):
    prediction, mask = pair
    assume(np.ptp(prediction) > 0)
    relabelled = (gain * prediction.astype(int) + offset).astype(np.uint8)
    assert_same(score(relabelled, mask, 'released'), score(prediction, mask, 'released'))
    before, after = score(prediction, mask, 'pranet'), score(relabelled, mask, 'pranet')
    for name in ('wFm', 'Sm', 'MAE'):
        assert after[name] == pytest.approx(before[name], abs=1e-12, nan_ok=True)
    # Rounding may let a level pass one threshold earlier or later, as it does in MATLAB.
    assert (after['Sen'][1:] >= before['Sen'][:-1]).all()
    assert (after['Sen'][:-1] <= before['Sen'][1:]).all()


@examples
@given(pairs(), st.data())
def test_hard_scores_see_only_the_side_of_one_half(pair, data):
    prediction, mask = pair
    table = np.sort(np.array(data.draw(st.lists(st.integers(0, 127), min_size=128, max_size=128))))
    table = np.concatenate([table, 128 + table]).astype(np.uint8)
    before, after = score(prediction, mask, 'hard'), score(table[prediction], mask, 'hard')
    assert_same(after, before, but=('MAE',), tolerance=0)


@examples
@given(pairs(), st.integers(1, 255))
def test_masks_mean_the_same_at_every_maximum_but_for_the_toolbox(pair, maximum):
    prediction, mask = pair
    relabelled = np.where(mask > 0, maximum, 0).astype(np.uint8)
    for protocol in ('released', 'hard'):
        assert_same(score(prediction, relabelled, protocol), score(prediction, mask, protocol), tolerance=0)
    seen = mask if maximum > 128 else np.zeros_like(mask)
    assert_same(score(prediction, relabelled, 'pranet'), score(prediction, seen, 'pranet'), tolerance=0)


@examples
@given(pairs())
def test_one_pass_gives_what_each_protocol_gives_alone(pair):
    for protocol, scores in score_all(*pair).items():
        alone = score(*pair, protocol=protocol)
        assert set(alone) == set(scores)
        assert_same(alone, scores, tolerance=0)


def test_arrays_are_left_as_they_were_and_views_are_read_as_copies():
    prediction, mask = blobs(3)
    kept = prediction.copy(), mask.copy()
    views = prediction[::-1, ::2].T, mask[::-1, ::2].T
    for array in (prediction, mask):
        array.setflags(write=False)
    for protocol, scores in score_all(*views).items():
        assert_same(score(*(np.ascontiguousarray(view) for view in views), protocol), scores, tolerance=0)
    np.testing.assert_array_equal(prediction, kept[0])
    np.testing.assert_array_equal(mask, kept[1])


def test_matlab_halving_uses_its_published_weights():
    weights = pranet.cubic_weights(16, 8)
    half = np.array([-0.01171875, -0.03515625, 0.11328125, 0.43359375])
    np.testing.assert_allclose(weights[4, 5:13], np.concatenate([half, half[::-1]]), atol=1e-15)
    # Beyond the border the image is mirrored, its edge pixel repeated: taps -3 … -1 fall on 2 … 0.
    np.testing.assert_allclose(
        weights[0, :5], [half[3] + half[2], half[3] + half[1], half[2] + half[0], half[1], half[0]]
    )


@examples
@given(st.tuples(sides, sides), st.tuples(sides, sides), st.integers(0, 255))
def test_matlab_resize_keeps_constants_and_size(old, new, level):
    np.testing.assert_array_equal(pranet.imresize(np.full(old, level, np.uint8), new), np.full(new, level))
    image = np.random.default_rng(level).integers(0, 256, old, dtype=np.uint8)
    np.testing.assert_array_equal(pranet.imresize(image, old), image)
    np.testing.assert_array_equal(pranet.imresize(image[::-1], new), pranet.imresize(image, new)[::-1])


@pytest.mark.parametrize('protocol', ['released', 'pranet', 'hard'])
def test_a_map_of_another_size_is_scored_like_the_resized_one(protocol):
    prediction, mask = blobs(5)
    small = pranet.imresize(prediction, (35, 45))
    scores, own = score(small, mask, protocol), score(prediction, mask, protocol)
    assert scores['MAE'] == pytest.approx(own['MAE'], abs=0.01)
    assert scores['MAE'] != own['MAE']
