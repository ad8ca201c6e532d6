"""Fits the temperature of a model on images that it was neither trained nor tested on."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from m2snet_jax.data.datasets import open_dataset
from m2snet_jax.errors import InputError
from m2snet_jax.evaluation.trained_images import recorded_manifest
from m2snet_jax.metrics import calibration_counts, expected_calibration_error
from m2snet_jax.metrics.temperature import fit_temperature, logit_counts, negative_log_likelihood
from m2snet_jax.prediction.predictor import LARGEST_BATCH, Predictor

FLAT = 8.0  # logits are read from probabilities at this temperature, where float32 tells ±100 from certainty


def calibrate(model: Path, predictor: Predictor, config: Any) -> dict[str, Any]:
    """Returns the temperature of a model that makes the labels of its validation images most likely.

    Pixels are compared at the network's size. All classes share the temperature.

    Args:
        model: the folder of a run, or a file of weights.
        predictor: of this model alone, not calibrated.
        config: whose `data.validation` holds images out of training.

    Returns:
        dict of JSON values: `temperature`, `model_hash`, `manifest_hash`, `images`; `likelihood`, mean −log of the
        probability of the true label; `calibration_error`; and `calibration`, as `calibration_counts` of all pixels;
        the last three with `before` and `after`.

    Raises:
        InputError: no validation images, or the run trained or tested on some of them.
    """
    dataset = open_dataset(config)
    if dataset.validation is None:
        raise InputError(
            '--config.data.validation=none: a temperature is fitted on validation images only, never on test images; '
            'train with --config.data.validation=0.1, or name a --config whose images the model has not seen'
        )
    _check_unseen(model, dataset)
    flat = Predictor(predictor.members[0].model, predictor.size, config, FLAT)
    counts, before, after = 0.0, 0.0, 0.0
    pairs = []
    for start in range(0, len(dataset.validation), LARGEST_BATCH):
        examples = [dataset.validation[k] for k in range(start, min(start + LARGEST_BATCH, len(dataset.validation)))]
        for example, p in zip(examples, flat.probabilities([one['image'] for one in examples]), strict=True):
            p = np.asarray(p, np.float64)
            with np.errstate(divide='ignore'):
                logits = FLAT * (np.log(p) - np.log1p(-p))
            lesion = _lesion(example['mask'], predictor)
            counts = counts + logit_counts(logits, lesion)
            pairs.append((logits.astype(np.float32), lesion))
    temperature = fit_temperature(np.asarray(counts))
    for logits, lesion in pairs:
        before = before + _calibration(logits, lesion)
        after = after + _calibration(logits / temperature, lesion)
    both = {'before': np.asarray(before), 'after': np.asarray(after)}
    likelihood = {'before': 1.0, 'after': temperature}
    return {
        'temperature': temperature,
        'model_hash': predictor.model_hash,
        'manifest_hash': dataset.manifest_hash,
        'images': len(dataset.validation),
        'likelihood': {name: negative_log_likelihood(np.asarray(counts), one) for name, one in likelihood.items()},
        'calibration_error': {name: expected_calibration_error(one) for name, one in both.items()},
        'calibration': {name: one.tolist() for name, one in both.items()},
    }


def _check_unseen(model, dataset):
    """Raises InputError if a run was trained or tested on an image of the validation split."""
    splits = {row['image_sha256']: row['split'] for row in recorded_manifest(model)}
    for row in dataset.manifest:
        split = splits.get(row['image_sha256'], 'validation')
        if row['split'] == 'validation' and split != 'validation':
            raise InputError(
                f'--model={model}: {row["name"]} is in its split {split}, not in validation; calibrate on the images '
                'that its run held out'
            )


def _lesion(mask, predictor):
    """Returns a mask at the network's size, bool [S, S, classes]."""
    small = cv2.resize(mask, (predictor.size, predictor.size), interpolation=cv2.INTER_NEAREST)
    if predictor.classes == 1:
        return small[..., None] > mask.max() / 2
    return small[..., None] == np.arange(1, predictor.classes + 1)


def _calibration(logits, lesion):
    probability = 1 / (1 + np.exp(-np.clip(logits, -60, 60)))
    side = probability.shape[0]
    return calibration_counts(probability.reshape(side, -1), lesion.reshape(side, -1))
