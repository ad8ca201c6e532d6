"""The fitted temperature: a planted one is recovered, and nothing is fitted where nothing can be."""

import numpy as np
import pytest

from m2snet_jax import InputError
from m2snet_jax.metrics.temperature import fit_temperature, logit_counts, negative_log_likelihood


@pytest.mark.parametrize('planted', [0.4, 1.0, 3.0])
def test_a_planted_temperature_is_recovered_within_two_percent(planted):
    rng = np.random.default_rng(0)
    logits = planted * rng.normal(-1, 2, 400_000)
    lesion = rng.uniform(size=len(logits)) < 1 / (1 + np.exp(-logits / planted))
    parts = [logit_counts(logits[part::2], lesion[part::2]) for part in (0, 1)]
    assert fit_temperature(parts[0] + parts[1]) == pytest.approx(planted, rel=0.02)


def test_likelihood_by_hand():
    counts = logit_counts(np.array([np.log(3), -np.log(3)]), np.array([True, True]))
    expected = -(np.log(0.75) + np.log(0.25)) / 2
    assert negative_log_likelihood(counts, 1.0) == pytest.approx(expected, abs=1e-2)


def test_a_logit_is_counted_whatever_its_size():
    counts = logit_counts(np.array([[-np.inf, 1e9, 0.0]]), np.array([[0, 1, 1]]))
    assert counts.sum(axis=1).tolist() == [1, 2]
    assert (counts[0, 0], counts[1, -1]) == (1, 1)


def test_what_has_no_temperature_is_refused():
    with pytest.raises(InputError, match='needs both'):
        fit_temperature(logit_counts(np.zeros(4), np.ones(4)))
    with pytest.raises(InputError, match='separates these pixels'):
        fit_temperature(logit_counts(np.array([-1.0, 1.0]), np.array([0, 1])))
    with pytest.raises(InputError, match='NaN'):
        logit_counts(np.array([np.nan]), np.array([1]))
