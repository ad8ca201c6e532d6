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

# A run can be resumed with other values of these keys: they do not change its result.
FREE_KEYS = ('data.root', 'data.cache', 'data.threads', 'log.', 'checkpoint.', 'evaluate.')
LOSSNET_KEYS = ('loss.lossnet_size', 'loss.lossnet_weights')  # likewise where loss.lossnet is 0: they are not read
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
    free = FREE_KEYS if before['loss.lossnet'] or now['loss.lossnet'] else (*FREE_KEYS, *LOSSNET_KEYS)
    keys = [key for key in {**before, **now} if not key.startswith(free)]
    return [(key, before.get(key), now.get(key)) for key in keys if before.get(key) != now.get(key)]
