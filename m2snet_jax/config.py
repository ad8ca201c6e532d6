"""Configs: find the file, load it, check it, and tell whether a run may go on under a changed one.

What every key means stands in `configs/default.py`.
"""

import importlib.util
import inspect
import json
from pathlib import Path

from ml_collections import ConfigDict

from m2snet_jax.errors import InputError
from m2snet_jax.window import parse_window

MINIMUM_SIZE = 33  # below it the coarsest of the five levels has a single pixel and batch norm nothing to average
# A run may go on under other values of these: they do not change its result.
FREE_KEYS = ('data.root', 'data.cache', 'data.threads', 'log.', 'checkpoint.', 'evaluate.')
_FOLDERS = (Path(__file__).parent.parent / 'configs', Path(__file__).parent / 'configs')  # a checkout, a wheel


def find_config(name, room=''):
    """Returns the path of a config and its variant or None.

    Args:
        name: `path/to/file.py[:variant]`, or the bare name of one of ours, as `kvasir[:variant]`.
        room: folder within `configs` where bare names are looked for, as 'studies'.
    """
    stem, _, variant = name.partition(':')
    for path in (Path(stem), *(folder / room / f'{stem}.py' for folder in _FOLDERS)):
        if path.is_file() and path.suffix == '.py':
            return path, variant or None
    known = sorted({path.stem for folder in _FOLDERS for path in (folder / room).glob('*.py')})
    raise InputError(f'--config={name}: no such file; give a path or one of {", ".join(known)}')


def load_file(name, function, room=''):
    """Returns the function of a config file, the file's path and the variant that `name` asks for, or None.

    Args:
        name, room: as in `find_config`.
        function: its name, as 'get_config'.
    """
    path, variant = find_config(name, room)
    spec = importlib.util.spec_from_file_location(f'config_{path.stem}', path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise InputError(f'--config={name}: {path} fails with {type(error).__name__}: {error}') from None
    if not hasattr(module, function):
        hint = '; it is a study, for the command study' if hasattr(module, 'get_study') else ''
        raise InputError(f'--config={name}: {path} has no function {function}(){hint}')
    found = getattr(module, function)
    if variant and not inspect.signature(found).parameters:
        raise InputError(f'--config={name}: {path.stem} has no variants')
    return found, path, variant


def load_config(name, **overrides):
    """Loads a config by path or bare name and returns it as a ConfigDict.

    Args:
        name: as in `find_config`.
        **overrides: dotted keys as on the command line, `load_config('kvasir', **{'data.root': '…'})`.
    """
    get_config, _, variant = load_file(name, 'get_config')
    try:
        config = get_config(variant) if variant else get_config()
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
    # A key that is younger than the run had its default's meaning then.
    now, before = flatten(to_json(config)), {**flatten(to_json(load_config('default'))), **flatten(recorded)}
    keys = [key for key in {**before, **now} if not key.startswith(FREE_KEYS)]
    return [(key, before.get(key), now.get(key)) for key in keys if before.get(key) != now.get(key)]


def check_config(config):
    """Raises InputError for the first key whose value cannot be used."""
    choices = {
        'model.name': ('m2snet', 'msnet'),
        'model.encoder': ('res2net14', 'res2net50', 'res2net101'),
        'loss.bce': ('mean', 'weighted'),
        'dtype': ('float32', 'bfloat16'),
        'select': ('last', 'validation', 'test'),
    }
    least = {
        'seed': 0,
        'batch': 1,
        'epochs': 1,
        'steps': 1,
        'accumulate': 1,
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
    if config.ema is not None and not 0 < config.ema < 1:
        raise InputError(f'--config.ema={config.ema}: must be between 0 and 1, as 0.999; none switches it off')
    _check_selection(config)
    parse_window(config.data.window)
    if not config.data.sizes:
        raise InputError('--config.data.sizes is empty: give at least one size')
    for size in config.data.sizes:
        if not isinstance(size, int) or size < MINIMUM_SIZE:
            raise InputError(f'--config.data.sizes: {size} found, the least side is {MINIMUM_SIZE} pixels')
    if config.log.wandb and not importlib.util.find_spec('wandb'):
        raise InputError('--config.log.wandb=True: wandb is not installed; pip install wandb, or leave it False')


def _check_selection(config):
    """Raises InputError where the model to score cannot, or should not, be chosen as asked."""
    if config.select == 'test' and not config.select_on_test:
        raise InputError(
            '--config.select=test: a model chosen on the test set has flattered scores; hold images out '
            '(--config.data.validation) for --config.select=validation, or insist with --config.select_on_test=true'
        )
    if config.select == 'validation' and config.data.validation is None:
        raise InputError('--config.select=validation: no images are held out; set --config.data.validation')
    if config.select != 'last' and config.recalibrate:
        raise InputError(f'--config.recalibrate={config.recalibrate}: only for the last step; set --config.select=last')
