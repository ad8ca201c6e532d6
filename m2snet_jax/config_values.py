"""The ranges of the values of a config. `configs/default.py` documents the keys."""

import importlib.util
from typing import Any

from m2snet_jax.config import flatten
from m2snet_jax.errors import InputError

MINIMUM_SIZE = 33  # below it the coarsest level has a single pixel, too few for batch norm
CHOICES = {
    'loss.bce': ('mean', 'weighted'),
    'dtype': ('float32', 'bfloat16'),
    'select': ('last', 'validation', 'test'),
    'optimizer.name': ('sgd', 'adamw'),
    'optimizer.schedule': ('triangular', 'cosine'),
    'data.normalisation': ('released', 'imagenet'),
}
LEAST = {
    'seed': 0,
    'batch': 1,
    'epochs': 1,
    'steps': 1,
    'gradient_accumulation': 1,
    'precise_batch_norm': 0,
    'loss.lossnet': 0,
    'loss.lossnet_size': 16,
    'optimizer.peak_lr': 0,
    'optimizer.encoder_lr_factor': 0,
    'optimizer.weight_decay': 0,
    'optimizer.warmup': 0,
    'data.seed': 0,
    'data.size': MINIMUM_SIZE,
    'data.classes': 1,
    'data.threads': 1,
    'log.every': 1,
    'log.images': 0,
    'checkpoint.every': 1,
    'checkpoint.keep': 1,
    'evaluate.batch': 1,
    'evaluate.bootstrap': 0,
}


def check_values(config: Any) -> None:
    """Raises InputError for the first key whose value is out of its range.

    The names of models, encoders and windows are checked by `build.check_config`, which calls this.
    """
    flat = flatten(config)
    for key, allowed in CHOICES.items():
        if flat[key] not in allowed:
            raise InputError(f'--config.{key}={flat[key]}: must be one of {", ".join(allowed)}')
    for key, bound in LEAST.items():
        if flat[key] is not None and flat[key] < bound:
            raise InputError(f'--config.{key}={flat[key]}: must be at least {bound}')
    if not 0 <= config.optimizer.momentum < 1:
        raise InputError(f'--config.optimizer.momentum={config.optimizer.momentum}: must be from 0 up to 1')
    if config.optimizer.warmup and config.optimizer.schedule != 'cosine':
        raise InputError(f'--config.optimizer.warmup={config.optimizer.warmup:g}: only with optimizer.schedule=cosine')
    if config.optimizer.clip is not None and not config.optimizer.clip > 0:
        raise InputError(f'--config.optimizer.clip={config.optimizer.clip}: must be above 0; none switches it off')
    if not 0 <= config.model.freeze_shared_norms_after <= 1:
        raise InputError(
            f'--config.model.freeze_shared_norms_after={config.model.freeze_shared_norms_after}: must be from 0 to 1'
        )
    if config.ema is not None and not 0 < config.ema < 1:
        raise InputError(f'--config.ema={config.ema}: must be between 0 and 1, as 0.999; none switches it off')
    _check_selection(config)
    if not config.data.sizes:
        raise InputError('--config.data.sizes is empty: give at least one size')
    for size in config.data.sizes:
        if not isinstance(size, int) or size < MINIMUM_SIZE:
            raise InputError(f'--config.data.sizes: {size} found, the least side is {MINIMUM_SIZE} pixels')
    profiled_steps(config.log.profile)
    if config.log.wandb and not importlib.util.find_spec('wandb'):
        raise InputError('--config.log.wandb=True: wandb is not installed; pip install wandb, or leave it False')


def profiled_steps(value: str | None) -> range:
    """Returns the numbers of the steps that `log.profile` names: 'A:B' is A to B, None is none.

    Raises:
        InputError: another text.
    """
    if value is None:
        return range(0)
    first, _, last = value.partition(':')
    if not (first.isdecimal() and last.isdecimal() and 1 <= int(first) <= int(last)):
        raise InputError(f'--config.log.profile={value}: give the first and the last step to trace, as 101:103')
    return range(int(first), int(last) + 1)


def _check_selection(config: Any) -> None:
    """Raises InputError if the model to score cannot, or should not, be chosen as `select` says."""
    if config.select == 'test' and not config.select_on_test:
        raise InputError(
            '--config.select=test: a model chosen on the test set has flattered scores; hold images out '
            '(--config.data.validation) for --config.select=validation, or insist with --config.select_on_test=true'
        )
    if config.select == 'validation' and config.data.validation is None:
        raise InputError('--config.select=validation: no images are held out; set --config.data.validation')
    if config.select != 'last' and config.precise_batch_norm:
        raise InputError(
            f'--config.precise_batch_norm={config.precise_batch_norm}: only for the last step; set --config.select=last'
        )
