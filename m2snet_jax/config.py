"""Configs: find the file, load it, check it, and tell whether a run may go on under a changed one.

What every key means stands in `configs/default.py`.
"""

import importlib.util
import inspect
import json
from pathlib import Path

from ml_collections import ConfigDict

from m2snet_jax.errors import InputError

MINIMUM_SIZE = 33  # below it the coarsest of the five levels has a single pixel and batch norm nothing to average
# A run may go on under other values of these: they do not change its result.
FREE_KEYS = ('data.root', 'data.cache', 'data.threads', 'log.', 'checkpoint.', 'evaluate.')
_FOLDERS = (Path(__file__).parent.parent / 'configs', Path(__file__).parent / 'configs')  # a checkout, a wheel


def find_config(name):
    """Returns the path of a config and its variant or None.

    Args:
        name: `path/to/file.py[:variant]`, or the bare name of one of ours, as `kvasir[:variant]`.
    """
    stem, _, variant = name.partition(':')
    for path in (Path(stem), *(folder / f'{stem}.py' for folder in _FOLDERS)):
        if path.is_file() and path.suffix == '.py':
            return path, variant or None
    known = sorted({path.stem for folder in _FOLDERS for path in folder.glob('*.py')})
    raise InputError(f'--config={name}: no such file; give a path or one of {", ".join(known)}')


def load_config(name, **overrides):
    """Loads a config by path or bare name and returns it as a ConfigDict.

    Args:
        name: as in `find_config`.
        **overrides: dotted keys as on the command line, `load_config('kvasir', **{'data.root': '…'})`.
    """
    path, variant = find_config(name)
    spec = importlib.util.spec_from_file_location(f'config_{path.stem}', path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise InputError(f'--config={name}: {path} fails with {type(error).__name__}: {error}') from None
    if variant and not inspect.signature(module.get_config).parameters:
        raise InputError(f'--config={name}: {path.stem} has no variants')
    try:
        config = module.get_config(variant) if variant else module.get_config()
    except ValueError as error:
        raise InputError(f'--config={name}: {error}') from None
    for key, value in overrides.items():
        if key not in flatten(config):
            raise InputError(f'--config.{key}: no such key')
        config.update_from_flattened_dict({key: value})
    return config.lock()


def flatten(config, prefix=''):
    """Returns {dotted key: value} of a nested config."""
    flat = {}
    for key, value in config.items():
        nested = isinstance(value, (ConfigDict, dict))
        flat.update(flatten(value, f'{prefix}{key}.') if nested else {f'{prefix}{key}': value})
    return flat


def to_json(config):
    """Returns the resolved config as a dict of plain JSON values (tuples become lists)."""
    return json.loads(json.dumps({key: config[key] for key in config}, default=lambda value: value.to_dict()))


def changed_keys(config, recorded):
    """Returns [(key, recorded value, value now)] of the keys that shape the result and differ.

    Args:
        config: the config now.
        recorded: what `to_json` gave when the run began.
    """
    now, before = flatten(to_json(config)), flatten(recorded)
    keys = [key for key in {**before, **now} if not key.startswith(FREE_KEYS)]
    return [(key, before.get(key), now.get(key)) for key in keys if before.get(key) != now.get(key)]


def check_config(config):
    """Raises InputError for the first key whose value cannot be used."""
    choices = {
        'model.name': ('m2snet', 'msnet'),
        'model.encoder': ('res2net14', 'res2net50', 'res2net101'),
        'loss.bce': ('mean', 'weighted'),
        'dtype': ('float32', 'bfloat16'),
    }
    least = {
        'seed': 0,
        'batch': 1,
        'epochs': 1,
        'steps': 1,
        'recalibrate': 0,
        'loss.lossnet': 0,
        'loss.lossnet_size': 16,
        'optimizer.peak': 0,
        'optimizer.encoder_factor': 0,
        'optimizer.weight_decay': 0,
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
    flat = flatten(config)
    for key, allowed in choices.items():
        if flat[key] not in allowed:
            raise InputError(f'--config.{key}={flat[key]}: must be one of {", ".join(allowed)}')
    for key, bound in least.items():
        if flat[key] is not None and flat[key] < bound:
            raise InputError(f'--config.{key}={flat[key]}: must be at least {bound}')
    if not 0 <= config.optimizer.momentum < 1:
        raise InputError(f'--config.optimizer.momentum={config.optimizer.momentum}: must be from 0 up to 1')
    if not 0 <= config.model.fix_filters <= 1:
        raise InputError(f'--config.model.fix_filters={config.model.fix_filters}: must be from 0 to 1')
    if not config.data.sizes:
        raise InputError('--config.data.sizes is empty: give at least one size')
    for size in config.data.sizes:
        if not isinstance(size, int) or size < MINIMUM_SIZE:
            raise InputError(f'--config.data.sizes: {size} found, the least side is {MINIMUM_SIZE} pixels')
    if config.log.wandb and not importlib.util.find_spec('wandb'):
        raise InputError('--config.log.wandb=True: wandb is not installed; pip install wandb, or leave it False')
