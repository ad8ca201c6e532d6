"""Scores of segmentation maps: two published protocols, plain scores at one half, and their statistics."""

from m2snet_jax.metrics.calibration import calibration_counts, expected_calibration_error
from m2snet_jax.metrics.score import class_pairs, score, score_all
from m2snet_jax.metrics.statistics import aggregate, aggregate_all, bootstrap_mean, class_mean

__all__ = [
    'aggregate',
    'aggregate_all',
    'bootstrap_mean',
    'calibration_counts',
    'class_mean',
    'class_pairs',
    'expected_calibration_error',
    'score',
    'score_all',
]
