"""Calibration: closed forms, and one way for levels and floats."""

import numpy as np
import pytest

from m2snet_jax.errors import InputError
from m2snet_jax.metrics import calibration_counts, expected_calibration_error


def test_probabilities_that_keep_their_word_have_no_error():
    probability = np.repeat(np.array([0.0, 0.25, 0.5, 0.75, 1.0]), 100).reshape(5, 100)
    mask = np.zeros((5, 100), np.uint8)
    for row, lesion in enumerate((0, 25, 50, 75, 100)):
        mask[row, :lesion] = 255
    assert expected_calibration_error(calibration_counts(probability, mask)) == pytest.approx(0, abs=1e-12)


def test_a_constant_probability_errs_by_its_distance_from_the_share():
    mask = np.zeros((10, 10), np.uint8)
    mask[:5] = 255
    counts = calibration_counts(np.full((10, 10), 0.7), mask)
    assert expected_calibration_error(counts) == pytest.approx(0.2)
    np.testing.assert_allclose(counts[:, 7], [100, 70, 50])
    assert counts.sum() == pytest.approx(220)
    assert expected_calibration_error(calibration_counts(mask, mask)) == 0
    assert expected_calibration_error(calibration_counts(255 - mask, mask)) == 1


def test_levels_count_as_their_share_of_255():
    generator = np.random.default_rng(0)
    levels, mask = generator.integers(0, 256, (30, 40), dtype=np.uint8), generator.random((30, 40)) > 0.7
    for bins in (1, 10, 15):
        np.testing.assert_allclose(
            calibration_counts(levels, mask, bins), calibration_counts(levels / 255, mask, bins), rtol=1e-12
        )


def test_counts_of_images_add_up_to_those_of_the_set():
    generator = np.random.default_rng(1)
    probability, mask = generator.random((4, 30, 40)), generator.random((4, 30, 40)) > 0.5
    parts = sum(calibration_counts(*pair) for pair in zip(probability, mask, strict=True))
    whole = calibration_counts(probability.reshape(120, 40), mask.reshape(120, 40))
    np.testing.assert_allclose(parts, whole)


@pytest.mark.parametrize('bad', [-0.1, 1.1, np.nan])
def test_what_is_no_probability_is_refused(bad):
    with pytest.raises(InputError, match='not in'):
        calibration_counts(np.array([[0.5, bad]]), np.zeros((1, 2), np.uint8))


def test_sizes_must_agree():
    with pytest.raises(InputError, match=r'\(2, 2\), mask \(3, 2\)'):
        calibration_counts(np.zeros((2, 2)), np.zeros((3, 2), np.uint8))
