"""Both protocols against a slow transcription of their formulas, pixel by pixel, on small images of every odd kind."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from m2snet_jax.errors import InputError
from m2snet_jax.metrics import score, score_all

TINY = 1e-12
levels = st.one_of(st.integers(0, 255), st.sampled_from([0, 1, 127, 128, 129, 254, 255]))
shapes = st.tuples(st.integers(1, 9), st.integers(1, 9))


@st.composite
def pairs(draw):
    shape = draw(shapes)
    prediction = draw(arrays(np.uint8, shape, elements=levels, fill=levels))
    mask = draw(arrays(np.uint8, shape, elements=st.sampled_from([0, 255]), fill=st.sampled_from([0, 255])))
    return prediction, mask


def similar_region(prediction, mask, epsilon, sample):
    """One block's structural similarity; a quantity that rounding leaves below 1e-12 is zero."""
    n = prediction.size
    if n == 0:
        return np.nan
    below = n - 1 + (epsilon if sample else 0)
    if below == 0:
        return np.nan
    x, y = prediction.mean(), mask.mean()
    covariance = ((prediction - x) * (mask - y)).sum() / below
    variances = [((values - values.mean()) ** 2).sum() / (below if sample else n) for values in (prediction, mask)]
    alpha, beta = 4 * x * y * covariance, (x**2 + y**2) * sum(variances)
    if abs(alpha) > TINY:
        return alpha / (beta + epsilon)
    return 1.0 if abs(beta) < TINY else 0.0


def similar_object(values, epsilon, sample):
    deviation = values.std(ddof=1 if sample and values.size > 1 else 0)
    return 2 * values.mean() / (values.mean() ** 2 + 1 + deviation + epsilon)


def structure(prediction, mask, row, column, epsilon, sample):
    if not mask.any():
        return 1 - prediction.mean()
    if mask.all():
        return prediction.mean()
    share = mask.mean()
    objects = share * similar_object(prediction[mask], epsilon, sample)
    objects += (1 - share) * similar_object(1 - prediction[~mask], epsilon, sample)
    regions = 0
    for rows in (slice(0, row), slice(row, None)):
        for columns in (slice(0, column), slice(column, None)):
            block, part = prediction[rows, columns], mask[rows, columns].astype(float)
            regions += block.size / mask.size * similar_region(block, part, epsilon, sample)
    return 0.5 * objects + 0.5 * regions


def alignment(binary, mask, epsilon):
    binary, label = binary.astype(float), mask.astype(float)
    if mask.size == 1:
        return float(binary.item() == label.item())
    if not mask.any():
        enhanced = 1 - binary
    elif mask.all():
        enhanced = binary
    else:
        a, b = binary - binary.mean(), label - label.mean()
        enhanced = (2 * a * b / (a**2 + b**2 + epsilon) + 1) ** 2 / 4
    return enhanced.sum() / (mask.size - 1 + epsilon)


def weighted(prediction, mask, epsilon):
    if not mask.any():
        return 0.0
    error = np.abs(prediction - mask)
    distance, nearest = ndimage.distance_transform_edt(~mask, return_indices=True)
    spread = np.where(mask, error, error[tuple(nearest)])
    y, x = np.mgrid[-3:4, -3:4]
    kernel = np.exp(-(x**2 + y**2) / 50)
    kernel /= kernel.sum()
    padded = np.pad(spread, 3)
    average = np.array(
        [[(padded[i : i + 7, j : j + 7] * kernel).sum() for j in range(mask.shape[1])] for i in range(mask.shape[0])]
    )
    smallest = np.where(mask & (average < error), average, error)
    weight = np.where(mask, 1.0, 2 - np.exp(np.log(0.5) / 5 * distance))
    weighed = smallest * weight
    hits = mask.sum() - weighed[mask].sum()
    recall, precision = 1 - weighed[mask].mean(), hits / (epsilon + hits + weighed[~mask].sum())
    return 2 * recall * precision / (epsilon + recall + precision)


def as_released(levels, mask):
    """The formulas of the released program, in floats."""
    mask = mask / (mask.max() + 1e-8) > 0.5
    low, high = int(levels.min()), int(levels.max())
    prediction = levels / 255 if low == high else (levels - float(low)) / (high - low)
    size, hits = mask.sum(), prediction[mask].sum()
    adaptive = prediction >= min(2 * prediction.mean(), 1) - TINY
    f = 0.0
    if (adaptive & mask).any():
        precision, recall = mask[adaptive].mean(), adaptive[mask].mean()
        f = 1.3 * precision * recall / (0.3 * precision + recall)
    whole = np.floor(255 * prediction + TINY)
    curves = np.zeros((2, 255))
    for index in range(255 if size else 0):
        chosen = whole >= 254 - index
        curves[:, index] = (chosen & mask).sum() / (chosen.sum() + 1e-8), (chosen & mask).sum() / size
    precision, recall = curves
    row, column = (round(axis.mean()) + 1 for axis in np.nonzero(mask)) if size else (0, 0)
    strict, half = prediction > 0.5, prediction >= 0.5
    halves = half[mask].mean() + (~half)[~mask].mean() if 0 < size < mask.size else np.nan
    return {
        'MAE': np.abs(prediction - mask).mean(),
        'maxF': (1.3 * precision * recall / (0.3 * precision + recall + 1e-8)).max(),
        'avgF': f,
        'wFm': weighted(prediction, mask, 1e-6),
        'Sm': structure(prediction, mask, row, column, 1e-8, sample=False),
        'Em': alignment(adaptive, mask, 1e-8),
        'Dice': (2 * hits + 1e-5) / (size + prediction.sum() + 1e-5),
        'IoU': ((strict & mask).sum() + 1e-5) / ((strict | mask).sum() + 1e-5),
        'BER': 1 - halves / 2,
        'Acc': (half == mask).mean(),
        'precision': precision,
        'recall': recall,
    }


def as_toolbox(levels, mask):
    """The formulas of the MATLAB toolbox, in doubles."""
    mask = mask > 128
    prediction = levels / 255.0
    low, high = prediction.min(), prediction.max()
    if low < high:
        prediction = (prediction - low) * (1 / (high - low))
    thresholds = [1 + i * (-1 / 255) for i in range(128)] + [0 - (255 - i) * (-1 / 255) for i in range(128, 256)]
    size, others = int(mask.sum()), int((~mask).sum())
    table = np.zeros((7, 256))
    for index, threshold in enumerate(thresholds):
        binary = prediction >= threshold
        hit, false = int((binary & mask).sum()), int((binary & ~mask).sum())
        table[6, index] = alignment(binary, mask, 2.0**-52)
        if hit:
            precision, recall = hit / (hit + false), hit / size
            specificity = (others - false) / others if others else np.nan
            overlap = 2 * hit / (size + hit + false), hit / (size + false)
            table[:6, index] = *overlap, recall, specificity, 2 * precision * recall / (precision + recall), precision
    row, column = (int(np.floor(np.mean(axis + 1) + 0.5)) for axis in np.nonzero(mask)) if size else (0, 0)
    similarity = structure(prediction, mask, row, column, 2.0**-52, sample=True)
    scores = {
        'wFm': weighted(prediction, mask, 2.0**-52),
        'Sm': 0.0 if similarity < 0 else similarity,
        'MAE': np.abs(prediction - mask).mean(),
    }
    for curve, name in zip(table, ('Dic', 'IoU', 'Sen', 'Spe', 'Fm', 'Pre', 'Em'), strict=True):
        finite = curve[~np.isnan(curve)]
        scores |= {f'mean{name}': curve.mean(), f'max{name}': finite.max() if len(finite) else np.nan}
        scores['Dice' if name == 'Dic' else name] = curve
    return scores


def assert_same(found, truth):
    assert set(found) == set(truth)
    for name, value in truth.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-9, atol=1e-9, equal_nan=True, err_msg=name)


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(pairs())
def test_released_is_the_released_formulas(pair):
    assert_same(score(*pair, protocol='released'), as_released(*pair))


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(pairs())
def test_pranet_is_the_toolbox_formulas(pair):
    with np.errstate(invalid='ignore'):
        assert_same(score(*pair, protocol='pranet'), as_toolbox(*pair))


EXTREMES = {
    'empty mask, empty map': (0, 0),
    'empty mask, constant map': (128, 0),
    'empty mask, full map': (255, 0),
    'full mask, empty map': (0, 255),
    'full mask, full map': (255, 255),
    'full mask, constant map': (3, 255),
}


@pytest.mark.parametrize('kind', EXTREMES)
@pytest.mark.parametrize('shape', [(1, 1), (1, 7), (5, 1), (6, 4)])
def test_extremes(kind, shape):
    prediction, mask = (np.full(shape, level, np.uint8) for level in EXTREMES[kind])
    scores = score_all(prediction, mask)
    assert_same(scores['released'], as_released(prediction, mask))
    with np.errstate(invalid='ignore'):
        assert_same(scores['pranet'], as_toolbox(prediction, mask))


def test_what_the_protocols_say_of_an_empty_mask():
    empty, noise = np.zeros((8, 8), np.uint8), np.full((8, 8), 51, np.uint8)
    silent, loud = score_all(empty, empty), score_all(noise, empty)
    assert silent['released']['Dice'] == silent['released']['IoU'] == 1
    assert loud['released']['Dice'] < 1e-6
    for scores in (silent, loud):
        assert np.isnan(scores['released']['BER'])
        assert scores['released']['avgF'] == scores['released']['maxF'] == scores['released']['wFm'] == 0
        assert scores['pranet']['meanDic'] == scores['pranet']['maxSpe'] == scores['pranet']['wFm'] == 0
    assert loud['released']['Sm'] == pytest.approx(0.8)
    assert silent['released']['Em'] == 0, 'an all-zero map has the adaptive threshold 0 and counts as all lesion'


def test_a_block_of_one_pixel_is_nan_for_the_released_program_only():
    mask = np.zeros((5, 5), np.uint8)
    mask[3, 3] = 255
    prediction = np.arange(25, dtype=np.uint8).reshape(5, 5)
    scores = score_all(prediction, mask)
    assert np.isnan(scores['released']['Sm'])
    assert np.isfinite(scores['pranet']['Sm'])


def test_a_block_without_pixels_is_nan_for_both():
    mask = np.zeros((5, 5), np.uint8)
    mask[4, 1:3] = 255
    scores = score_all(np.arange(25, dtype=np.uint8).reshape(5, 5), mask)
    assert np.isnan(scores['released']['Sm'])
    assert np.isnan(scores['pranet']['Sm'])


def test_a_centroid_at_one_half_is_rounded_to_even_or_up():
    mask = np.zeros((8, 8), np.uint8)
    mask[2:4, 2:4] = 255  # mean index 2.5: 0-based to even gives 3 rows above, 1-based 3.5 rounded up gives 4
    prediction = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    floats = (prediction - prediction.min()) / float(np.ptp(prediction))
    scores = score_all(prediction, mask)
    assert scores['released']['Sm'] == pytest.approx(structure(floats, mask > 0, 3, 3, 1e-8, sample=False), abs=1e-12)
    assert scores['pranet']['Sm'] == pytest.approx(structure(floats, mask > 0, 4, 4, 2.0**-52, sample=True), abs=1e-12)


@pytest.mark.parametrize('maximum', [1, 2, 127, 128, 200, 254, 255])
def test_lesion_of_every_mask_level(maximum):
    mask = np.arange(maximum + 1, dtype=np.uint8)[None]
    official = mask.astype(np.float32) / (np.float32(maximum) + np.float32(1e-8)) > 0.5
    found = score(np.zeros_like(mask), mask, 'hard')['FN']
    assert found == official.sum()
    found = [
        score(np.zeros((1, 2), np.uint8), np.array([[level, maximum]], np.uint8), 'hard')['FN'] for level in mask[0]
    ]
    assert [count == 2 for count in found] == official[0].tolist()
    recall = score(np.full_like(mask, 255), mask, 'pranet')
    assert recall['Pre'][0] == (mask > 128).mean()


def test_a_bool_mask_is_taken_as_it_is():
    generator = np.random.default_rng(1)
    prediction, mask = generator.integers(0, 256, (20, 30), dtype=np.uint8), generator.random((20, 30)) > 0.6
    for protocol, scores in score_all(prediction, mask).items():
        for name, value in score(prediction, np.where(mask, 255, 0).astype(np.uint8), protocol).items():
            np.testing.assert_array_equal(value, scores[name])


@pytest.mark.parametrize(
    ('prediction', 'mask', 'words'),
    [
        (np.zeros((4, 4)), np.zeros((4, 4), np.uint8), 'prediction is float64'),
        (np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.int32), 'mask is int32'),
        (np.zeros((4, 4, 1), np.uint8), np.zeros((4, 4), np.uint8), r'prediction has shape \(4, 4, 1\)'),
        (np.zeros((4, 4), np.uint8), np.zeros((0, 4), np.uint8), r'mask has shape \(0, 4\)'),
        ([[0]], np.zeros((1, 1), np.uint8), 'prediction is list'),
    ],
)
def test_unusable_arrays_are_named(prediction, mask, words):
    for function in (score, score_all):
        with pytest.raises(InputError, match=words) as error:
            function(prediction, mask)
        assert '\n' not in str(error.value)


def test_an_unknown_protocol_is_named():
    with pytest.raises(InputError, match=r"'dice'.*released, pranet, hard"):
        score(np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint8), 'dice')


@pytest.mark.parametrize(('level', 'label', 'expected'), [(255, 255, 1), (0, 0, 1), (255, 0, 0), (0, 255, 0)])
def test_an_image_of_one_pixel_has_an_e_measure_of_one_or_zero(level, label, expected):
    scores = score_all(np.full((1, 1), level, np.uint8), np.full((1, 1), label, np.uint8))
    # The threshold 0 of the toolbox, its last, marks every pixel; the released one is adaptive and marks it too.
    marked = float(label == 255)
    assert scores['released']['Em'] == (marked if level == 0 else expected)
    np.testing.assert_array_equal(scores['pranet']['Em'][:-1], expected)
    assert scores['pranet']['Em'][-1] == marked
    assert scores['pranet']['maxEm'] <= 1
