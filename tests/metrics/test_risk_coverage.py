"""Risk against coverage: the ideal area where doubt is perfect, the random one where doubt is none."""

import numpy as np
import pytest

from m2snet_jax import InputError
from m2snet_jax.metrics.risk_coverage import risk_coverage


def test_by_hand():
    found = risk_coverage(np.array([0.0, 0.6, 0.3]), np.array([1.0, 3.0, 2.0]))
    assert found['risk'] == pytest.approx([0, 0.15, 0.3])
    assert found['coverage'] == pytest.approx([1 / 3, 2 / 3, 1])
    assert found['area'] == found['ideal'] == pytest.approx(0.15)
    assert found['random'] == pytest.approx(0.3)
    worst = risk_coverage(np.array([0.0, 0.6, 0.3]), -np.array([1.0, 3.0, 2.0]))
    assert worst['area'] == pytest.approx((0.6 + 0.45 + 0.3) / 3)


def test_perfect_doubt_has_the_ideal_area():
    risk = np.random.default_rng(0).uniform(size=60)
    found = risk_coverage(risk, np.exp(3 * risk))
    assert found['area'] == found['ideal'] < found['low'] < found['random'] < found['high']


def test_random_doubt_is_within_the_interval_of_random_orders():
    rng = np.random.default_rng(1)
    risk = rng.uniform(size=80) ** 3
    found = [risk_coverage(risk, rng.permutation(80)) for _ in range(20)]
    inside = [one['low'] <= one['area'] <= one['high'] for one in found]
    assert np.mean(inside) >= 0.85
    assert np.mean([one['area'] for one in found]) == pytest.approx(found[0]['random'], rel=0.1)


def test_equal_doubts_count_with_their_mean():
    risk = np.array([0.2, 0.8, 0.5])
    found = risk_coverage(risk, np.zeros(3))
    assert found['area'] == pytest.approx(found['random'])
    assert found['risk'] == pytest.approx([0.5] * 3)


@pytest.mark.parametrize(
    ('risk', 'doubt', 'words'),
    [([], [], 'give one of each'), ([1.0], [1.0, 2.0], 'give one of each'), ([1.0], [np.nan], 'not finite')],
)
def test_what_cannot_be_used_is_refused(risk, doubt, words):
    with pytest.raises(InputError, match=words):
        risk_coverage(np.array(risk), np.array(doubt))
