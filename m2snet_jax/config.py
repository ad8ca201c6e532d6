"""Configs: find, load, check and compare them. `configs/default.py` documents the keys."""

import contextlib
import difflib
import importlib.util
import inspect
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from m2snet_jax.errors import InputError
from m2snet_jax.storage import local_path, refuse_address, with_addresses

MINIMUM_SIZE = 33  # below it the coarsest level has a single pixel, too few for batch norm
# A run can be resumed with other values of these keys: they do not change its result.
FREE_KEYS = ('data.root', 'data.cache', 'data.threads', 'log.', 'checkpoint.', 'evaluate.')
# Keys that hold a path, a pattern of paths or, for weights, also a name.
PATH_KEYS = (
    'data.root', 'data.images', 'data.masks', 'data.folds_file', 'data.exclude', 'model.encoder_weights',
    'model.weights', 'loss.lossnet_weights',
)  # fmt: skip
# Names of version 0.1. They are translated where its run folders are read; a config file or a command line with an old
# key is refused with the new one.
RENAMED_KEYS = {
    'accumulate': 'gradient_accumulation',
    'recalibrate': 'precise_batch_norm',
    'model.fix_filters': 'model.freeze_shared_norms_after',
    'optimizer.peak': 'optimizer.peak_lr',
    'optimizer.encoder_factor': 'optimizer.encoder_lr_factor',
    'optimizer.scale_rate_with_batch': 'optimizer.scale_lr_with_batch',
}
RENAMED_PROTOCOLS = {'reference': 'released'}
_FOLDERS = (Path(__file__).parent.parent / 'configs', Path(__file__).parent / 'configs')  # a checkout, a wheel


def find_config(name: str, room: str = '') -> tuple[Path, str | None]:
    """Returns the path of a config, and its variant if any.

    The name is `path/to/file.py[:variant]`, or that of a file in `configs`, e.g. `kvasir[:variant]`, or in its
    subfolder `room`, e.g. 'studies'.
    """
    refuse_address(name, f'--config={name}')
    stem, _, variant = name.partition(':')
    for path in (local_path(stem, '--config'), *(folder / room / f'{stem}.py' for folder in _FOLDERS)):
        if path.is_file() and path.suffix == '.py':
            return path, variant or None
    known = sorted({path.stem for folder in _FOLDERS for path in (folder / room).glob('*.py')})
    raise InputError(f'--config={name}: no such file; give a path or one of {", ".join(known)}')


def load_file(name: str, function: str, room: str = '') -> tuple[Callable, Path, str | None]:
    """Returns a function of a config file by its name, with the results of `find_config(name, room)`."""
    path, variant = find_config(name, room)
    spec: Any = importlib.util.spec_from_file_location(f'config_{path.stem}', path)
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


def load_config(name: str, **overrides: Any) -> ConfigDict:
    """Loads a config by path or name, as in `find_config`.

    The overrides are dotted keys as on the command line: `load_config('kvasir', **{'data.root': '…'})`.
    """
    get_config, path, variant = load_file(name, 'get_config')
    try:
        config = get_config(variant) if variant else get_config()
    except ValueError as error:
        raise InputError(f'--config={name}: {error}') from None
    if path.stem != 'default':
        default = load_config('default')
        for key in flatten(config):
            check_key(key, default, str(path))
    for key, value in overrides.items():
        check_key(key, config)
        config.update_from_flattened_dict({key: value})
    expand_paths(config)
    return config.lock()


def expand_paths(config: ConfigDict) -> None:
    """Replaces the paths in a config by those of this computer, see `storage.local_path`; raises its InputError."""
    flat = flatten(config)
    for key in PATH_KEYS:
        if isinstance(path := flat.get(key), str):
            config.update_from_flattened_dict({key: str(local_path(path, f'--config.{key}', fetched=False))})


def flatten(config: ConfigDict | Mapping, prefix: str = '') -> dict[str, Any]:
    """Returns the values of a nested config by dotted key."""
    flat = {}
    for key, value in config.items():
        nested = isinstance(value, (ConfigDict, dict))
        flat.update(flatten(value, f'{prefix}{key}.') if nested else {f'{prefix}{key}': value})
    return flat


def check_key(key: str, config: ConfigDict, where: str = '') -> None:
    """Raises InputError for a dotted key that a config does not have.

    `where` is the file that has the key, by default the command line.
    """
    known = flatten(config)
    if key in known:
        return
    where = f'{where}: {key}' if where else f'--config.{key}'
    if key in RENAMED_KEYS:
        raise InputError(f'{where}: this key is now called {RENAMED_KEYS[key]}')
    name = key.rpartition('.')[2]
    # Long keys of one part of the config are similar whatever their names, so the names decide.
    near = difflib.get_close_matches(key, known, 3)
    near.sort(key=lambda one: difflib.SequenceMatcher(None, name, one.rpartition('.')[2]).ratio())
    hint = f'did you mean {near[-1]}?' if near else 'the keys are listed in configs/default.py'
    raise InputError(f'{where}: no such key; {hint}')


def current_config(recorded: Mapping) -> dict[str, Any]:
    """Returns a recorded config, of any version, with the current keys."""
    nested = {}
    for key, value in flatten(recorded).items():
        *rooms, name = RENAMED_KEYS.get(key, key).split('.')
        inner = nested
        for room in rooms:
            inner = inner.setdefault(room, {})
        inner[name] = value
    return nested


def current_score_name(name: str) -> str:
    """Returns the name of a score, '[<set>/]<protocol>/<name>', with the current name of the protocol."""
    *test_set, protocol, score = ['', *name.split('/')]
    return '/'.join([*test_set, RENAMED_PROTOCOLS.get(protocol, protocol), score]).removeprefix('/')


def current_sheet(value: Any) -> Any:
    """Returns a score sheet, of any version, with the current names in the keys of every nested dict."""
    if isinstance(value, list):
        return [current_sheet(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {
        current_score_name(key): current_config(one) if key == 'config' and one else current_sheet(one)
        for key, one in value.items()
    }


def read_record(run: str | Path) -> dict[str, Any]:
    """Returns the `config.json` of a run's folder: config, manifest_hash and more; InputError if it cannot be read."""
    run = Path(run)
    # A key that the recorded config lacks, because it is newer, had the meaning of its default.
    default = flatten(to_json(load_config('default')))
    try:
        record = json.loads((run / 'config.json').read_text(encoding='utf-8'))
        config = default | flatten(record['config'])
        return {**record, 'config': current_config(config)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f'{run}: holds no run (no readable config.json); name the folder of a run') from None


def to_json(config: Any) -> dict[str, Any]:
    """Returns the resolved config as plain JSON values (tuples become lists); paths in buckets as addresses."""
    plain = json.loads(json.dumps({key: config[key] for key in config}, default=lambda value: value.to_dict()))
    for key in PATH_KEYS:
        *rooms, name = key.split('.')
        inner = plain
        for room in rooms:
            inner = inner.get(room, {})
        if isinstance(inner.get(name), str):
            inner[name] = with_addresses(inner[name])
    return plain


def changed_keys(config: Any, recorded: Mapping) -> list[tuple[str, Any, Any]]:
    """Returns (key, recorded value, value now) of each key that shapes the result and differs.

    `recorded` is the result of `to_json` when the run began.
    """
    # A key that the recorded config lacks, because it is newer, had the meaning of its default.
    now, before = flatten(to_json(config)), {**flatten(to_json(load_config('default'))), **flatten(recorded)}
    for key in PATH_KEYS:
        with contextlib.suppress(InputError):
            if isinstance(before.get(key), str):
                before[key] = with_addresses(str(local_path(before[key], fetched=False)))
    keys = [key for key in {**before, **now} if not key.startswith(FREE_KEYS)]
    return [(key, before.get(key), now.get(key)) for key in keys if before.get(key) != now.get(key)]


def check_values(config: Any) -> None:
    """Raises InputError for the first key whose value is out of its range.

    The names of models, encoders and windows are checked by `build.check_config`, which calls this.
    """
    choices = {
        'loss.bce': ('mean', 'weighted'),
        'dtype': ('float32', 'bfloat16'),
        'select': ('last', 'validation', 'test'),
        'optimizer.name': ('sgd', 'adamw'),
        'optimizer.schedule': ('triangular', 'cosine'),
        'data.normalisation': ('released', 'imagenet'),
    }
    least = {
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
    flat = flatten(config)
    for key, allowed in choices.items():
        if flat[key] not in allowed:
            raise InputError(f'--config.{key}={flat[key]}: must be one of {", ".join(allowed)}')
    for key, bound in least.items():
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
