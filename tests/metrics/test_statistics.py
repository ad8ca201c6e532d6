"""Means, intervals and comparisons: against plain loops, SciPy, and simulations whose truth is known."""

import numpy as np
import pytest
from scipy import stats

from m2snet_jax.errors import InputError
from m2snet_jax.evaluation.comparison import compare_means
from m2snet_jax.metrics import aggregate, bootstrap_mean, score_all
from m2snet_jax.metrics.statistics import draws, groups, interval, resample, stack

PROTOCOLS = ('released', 'pranet', 'hard')


def dataset(seed, images=12, noise=0.2):
    generator = np.random.default_rng(seed)
    masks = np.random.default_rng(0)
    scores = []
    for _ in range(images):
        mask = np.zeros((24, 30), np.uint8)
        top, left, side = masks.integers(2, 12), masks.integers(2, 16), masks.integers(5, 11)
        mask[top : top + side, left : left + side] = 255
        prediction = np.clip(mask / 255 * 0.8 + generator.normal(0.1, noise, mask.shape), 0, 1)
        scores.append(score_all((prediction * 255).astype(np.uint8), mask))
    return {protocol: [one[protocol] for one in scores] for protocol in PROTOCOLS}


def intervals_of(scores, protocol, *, resamples, seed=0):
    """The intervals of all figures, made as the score sheets make them."""
    figures, clusters = aggregate(scores, protocol), groups(None, len(scores))
    (drawn,) = resample([stack(scores)], protocol, clusters, resamples, seed)
    return {name: interval(figures[name], values, clusters, 0.95) for name, values in drawn.items()}


def coverage(truth, intervals):
    return np.mean([low <= truth <= high for low, high in intervals])


def test_intervals_of_independent_images_cover_as_promised():
    # Skewed like per-image Dice: many good, a few poor.
    generator = np.random.default_rng(2)
    samples = generator.beta(6, 1.2, size=(400, 40))
    intervals = [bootstrap_mean(values, resamples=600, seed=seed) for seed, values in enumerate(samples)]
    assert 0.92 <= coverage(6 / 7.2, intervals) <= 0.98
    narrower = [bootstrap_mean(values, resamples=600, seed=seed, level=0.8) for seed, values in enumerate(samples)]
    assert 0.76 <= coverage(6 / 7.2, narrower) <= 0.84


def test_intervals_of_clips_cover_only_when_clips_are_drawn():
    generator = np.random.default_rng(3)
    clips = np.repeat(np.arange(12), 15)
    together, apart = [], []
    for seed in range(250):
        values = 0.8 + generator.normal(0, 0.1, 12)[clips] + generator.normal(0, 0.05, 180)
        together.append(bootstrap_mean(values, clusters=clips, resamples=400, seed=seed))
        apart.append(bootstrap_mean(values, resamples=400, seed=seed))
    assert 0.91 <= coverage(0.8, together) <= 0.985
    assert coverage(0.8, apart) < 0.6


def test_the_same_seed_gives_the_same_interval():
    scores = dataset(1)
    for protocol in PROTOCOLS:
        first, again, other = (intervals_of(scores[protocol], protocol, seed=seed, resamples=200) for seed in (5, 5, 6))
        assert first == again
        assert first['MAE'] != other['MAE']


def test_a_plain_percentile_interval_of_many_images_is_scipys():
    values = np.random.default_rng(5).beta(5, 2, 2000)
    low, high = bootstrap_mean(values, resamples=4000, seed=1)
    other = stats.bootstrap((values,), np.mean, method='percentile', n_resamples=4000, rng=1).confidence_interval
    width = other.high - other.low
    assert low == pytest.approx(other.low, abs=0.06 * width)
    assert high == pytest.approx(other.high, abs=0.06 * width)


@pytest.mark.parametrize('protocol', PROTOCOLS)
def test_a_resample_is_the_aggregate_of_the_images_it_drew(protocol):
    scores = dataset(2)[protocol]
    clusters = groups([0, 0, 1, 1, 1, 2, 3, 3, 4, 5, 6, 7], len(scores))
    (found,) = resample([stack(scores)], protocol, clusters, 7, 3)
    (weights,) = draws(clusters, 7, 3)
    assert (weights[:, 0] == weights[:, 1]).all()
    assert weights[:, [0, 2, 5, 6, 8, 9, 10, 11]].sum(axis=1) == pytest.approx([8] * 7)
    for index, drawn in enumerate(weights.astype(int)):
        expected = aggregate([one for one, times in zip(scores, drawn, strict=True) for _ in range(times)], protocol)
        for name, values in found.items():
            assert values[index] == pytest.approx(expected[name], nan_ok=True), name


def test_many_images_are_drawn_in_blocks(monkeypatch):
    whole = bootstrap_mean(np.arange(50.0), resamples=100, seed=1)
    assert np.vstack(list(draws(np.arange(50), 100, 1))).shape == (100, 50)
    monkeypatch.setattr('m2snet_jax.metrics.statistics.WEIGHTS_AT_ONCE', 400)
    blocks = list(draws(np.arange(50), 100, 1))
    assert len(blocks) == 13
    assert np.vstack(blocks).sum(axis=1) == pytest.approx([50] * 100)
    assert bootstrap_mean(np.arange(50.0), resamples=100, seed=1) == whole


@pytest.mark.parametrize('protocol', PROTOCOLS)
def test_every_figure_lies_within_its_interval(protocol):
    scores = dataset(3)[protocol]
    figures, intervals = aggregate(scores, protocol), intervals_of(scores, protocol, resamples=300)
    counts = {'count', 'missed', 'lesion_free/count'}
    assert set(intervals) == set(figures) - counts
    for name, (low, high) in intervals.items():
        if not np.isnan(figures[name]):
            assert low - 1e-12 <= figures[name] <= high + 1e-12, name


def test_images_that_score_alike_leave_no_doubt():
    scores = [dataset(1)['released'][0]] * 9
    for low, high in intervals_of(scores, 'released', resamples=50).values():
        assert low == pytest.approx(high)
    assert np.isnan(bootstrap_mean([0.5])).all()
    assert np.isnan(bootstrap_mean([0.5, 0.6], clusters=['a', 'a'])).all()


def test_a_better_run_is_found_better():
    worse, better = dataset(7, images=30, noise=0.35), dataset(8, images=30, noise=0.3)
    for protocol, name in (('released', 'Sm'), ('pranet', 'meanDic'), ('hard', 'Dice')):
        first, second = (np.array([one[name] for one in runs[protocol]]) for runs in (worse, better))
        row = compare_means(first, second, resamples=500)
        assert row['first'] == pytest.approx(aggregate(worse[protocol], protocol)[name])
        assert row['second'] == pytest.approx(aggregate(better[protocol], protocol)[name])
        assert row['difference'] == pytest.approx(row['second'] - row['first'])
        assert 0 < row['low'] < row['difference'] < row['high']
        assert row['p_value'] == pytest.approx(stats.wilcoxon(second - first).pvalue)
        backwards = compare_means(second, first, resamples=500)
        assert backwards['low'] == pytest.approx(-row['high'])
        assert backwards['p_value'] == pytest.approx(row['p_value'])


def test_missed_lesions_compare_as_infinitely_far():
    found = {'TP': 5.0, 'FP': 1.0, 'FN': 1.0, 'TN': 9.0, 'Dice': 0.8, 'IoU': 0.7, 'precision': 0.8, 'recall': 0.8}
    found |= {'specificity': 0.9, 'accuracy': 0.9, 'HD95': 2.0, 'ASSD': 1.0, 'MAE': 0.1}
    missed = found | {'TP': 0.0, 'FP': 0.0, 'FN': 6.0, 'TN': 10.0, 'Dice': 0.0, 'HD95': np.inf, 'ASSD': np.inf}
    row = compare_means(np.array([2.0] * 8 + [np.inf] * 2), np.full(10, 2.0), resamples=200)
    assert row['first'] == np.inf
    assert row['second'] == 2
    assert row['difference'] == row['low'] == -np.inf
    low, high = intervals_of([found] * 8 + [missed] * 2, 'hard', resamples=500)['HD95']
    assert (low, high) == (2, np.inf)
    low, high = intervals_of([found] * 8 + [missed] * 2, 'hard', resamples=500)['HD95_found']
    assert (low, high) == (2, 2)


def test_wilcoxon_of_clips_takes_a_clip_as_one():
    runs = dataset(7, images=30, noise=0.35)['hard'], dataset(8, images=30, noise=0.3)['hard']
    worse, better = (np.array([one['Dice'] for one in scores]) for scores in runs)
    row = compare_means(worse, better, clusters=np.arange(30) // 3, resamples=100)
    assert row['p_value'] == pytest.approx(stats.wilcoxon((better - worse).reshape(10, 3).mean(axis=1)).pvalue)


def test_nan_is_kept_or_left_out_and_counted():
    lesion, full = np.zeros((9, 9), np.uint8), np.full((9, 9), 255, np.uint8)
    lesion[2:6, 3:7] = 255
    scores = [score_all(lesion, lesion), score_all(full // 2, lesion), score_all(lesion, full), score_all(lesion, full)]
    for protocol, name in (('released', 'BER'), ('pranet', 'meanSpe'), ('hard', 'specificity')):
        one = [image[protocol] for image in scores]
        kept, omitted = (aggregate(one, protocol, nan_policy=policy) for policy in ('keep', 'omit'))
        assert np.isnan(kept[name])
        assert not any(key.startswith('omitted/') for key in kept)
        assert omitted[name] == pytest.approx(aggregate(one[:2], protocol)[name])
        assert omitted[f'omitted/{name}'] == 2
        assert omitted['MAE'] == kept['MAE']
        assert np.isnan(intervals_of(one, protocol, resamples=20)[name]).all()
        # Half of the images have no such score: only resamples of those four times over stay without.
        (drawn,) = resample([stack(one)], protocol, np.arange(4), 400, 0)
        assert np.isnan(drawn[name]).mean() == pytest.approx(15 / 16, abs=0.05)
        figures = np.array([image[name] for image in one])
        assert np.isnan(compare_means(figures, figures, resamples=20)['p_value'])


def test_a_maximum_over_thresholds_skips_nan_as_in_matlab():
    # Some top levels miss threshold 1 by rounding: nothing hits a full mask there and Spe is 0, elsewhere it is NaN.
    full = np.full((4, 7), 255, np.uint8)
    tops = [top for top in range(1, 256) if (top / 255) * (1 / (top / 255)) < 1]
    prediction = np.linspace(0, tops[0], 28).round().astype(np.uint8).reshape(4, 7)
    scores = score_all(prediction, full)['pranet']
    assert scores['Spe'][0] == 0
    assert np.isnan(scores['Spe'][1:]).all()
    assert scores['maxSpe'] == 0
    found = aggregate([scores], 'pranet')
    assert found['maxSpe'] == 0
    assert np.isnan(found['meanSpe'])


@pytest.mark.parametrize(
    ('call', 'words'),
    [
        (lambda scores: aggregate([], 'hard'), 'no scores'),
        (lambda scores: aggregate(scores['hard'], 'released'), 'not scores of protocol released'),
        (lambda scores: aggregate(scores['pranet'], 'hard'), 'not scores of protocol hard'),
        (lambda scores: aggregate(scores['hard'][:1] + scores['pranet'], 'hard'), 'not scores of protocol hard'),
        (lambda scores: aggregate(scores['hard'], 'soft'), "'soft': choose one of released, pranet, hard"),
        (lambda scores: aggregate(scores['hard'], 'hard', nan_policy='drop'), "'drop': choose one of keep, omit"),
        (lambda scores: bootstrap_mean([0.5] * 12, clusters=[1, 2]), '2 cluster labels for 12 images'),
        (lambda scores: bootstrap_mean([]), 'no scores'),
    ],
)
def test_unusable_scores_are_named(call, words):
    with pytest.raises(InputError, match=words) as error:
        call(dataset(0))
    assert '\n' not in str(error.value)
