"""Finds the state dict in what a checkpoint holds, and the averaged weights beside it."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from m2snet_jax.errors import InputError
from m2snet_jax.weights.placeholders import Placeholder, printable, refusal
from m2snet_jax.weights.torch_tensors import Tensor

_WRAPPERS = ('state_dict', 'model_state_dict', 'model_state', 'model', 'net', 'network', 'weights', 'params', 'module')
# Averaged weights are in an entry with one of these words in its name, e.g. 'state_dict_ema', or under such a prefix.
_AVERAGES = {'ema', 'swa', 'avg', 'average', 'averaged', 'polyak', 'shadow'}
_KEY = '--config.model.weights_average'
_SHOWN = 8  # names in a message
DEEPEST = 8  # shared prefixes, one after the other


def find_state_dict(content: Any, average: str | None, path: Path) -> dict[str, Any]:
    """Returns the tensors, or arrays, by name, from inside the usual wrappers if there are any.

    What is left out is logged: other weights, and what is no tensor.

    Args:
        content: of the file.
        average: None for the ordinary weights, or the name of the averaged weights to return.
        path: of the file, for the log.

    Raises:
        InputError: there is no state dict, or none of that name, or averaged weights alone, or something else in the
            place of a tensor.
    """
    found, averaged = _unwrap(content)
    found, prefixed = _split(found)
    averaged |= prefixed
    names = ', '.join(map(printable, averaged))
    if average is not None:
        if average not in averaged:
            raise InputError(f'holds no averaged weights {average!r} ({_KEY}); there are {names or "none"}')
        found = averaged[average]
    elif averaged and not _tensors(found):
        raise InputError(f'holds averaged weights alone; to take them set {_KEY}={next(iter(averaged))} ({names})')
    elif averaged:
        logging.warning('%s: averaged weights are there too, not taken: %s (see %s)', path, names, _KEY)
    if not (tensors := _tensors(found)):
        keys = ', '.join(printable(key) for key in list(found)[:_SHOWN]) or 'nothing'
        raise InputError(f'holds no tensors, neither at its top nor under {", ".join(_WRAPPERS)}; found: {keys}')
    for name, value in found.items():
        if isinstance(value, Placeholder) and '.' in name and not name.endswith('_extra_state'):
            raise InputError(f'{printable(name)} is no tensor; {refusal(value)}')
    if left_out := _strangers(content):
        more = f' and {len(left_out) - _SHOWN} more' if len(left_out) > _SHOWN else ''
        shown = ', '.join(f'{printable(key)} ({printable(kind)})' for key, kind in list(left_out.items())[:_SHOWN])
        logging.warning('%s: left out unread, since it is no tensor: %s%s', path, shown, more)
    return tensors


def _unwrap(content):
    """Returns the innermost state dict, with all its entries, and {name: averaged weights} beside it."""
    averaged = {}
    for _ in range(len(_WRAPPERS)):
        if isinstance(content, Placeholder):
            raise refusal(content)
        if not isinstance(content, dict):
            raise InputError(f'holds no state dict but a {type(content).__name__.strip("_").lower()}')
        for key, value in content.items():
            if _is_average(key) and (inside := _inside(value)):
                averaged[key] = inside
        wrapped = [content[key] for key in _WRAPPERS if isinstance(content.get(key), dict) and content[key]]
        if not wrapped:
            stranger = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), Placeholder)), None)
            if stranger is not None and not averaged and not _tensors(content):
                raise refusal(stranger)
            break
        content = wrapped[0]
    return content, averaged


def _inside(value):
    """Returns the entries of the state dict in an entry for averaged weights, empty if it has no tensors."""
    for _ in range(len(_WRAPPERS)):
        if not isinstance(value, dict):
            return {}
        if _tensors(value):
            return _without_counter(value)
        keys = [key for key in value if key in _WRAPPERS or _is_average(key)]
        value = next((value[key] for key in keys if isinstance(value[key], dict) and value[key]), None)
    return {}


def _split(entries):
    """Returns the entries without those of averaged weights under a prefix, as `ema.`, and {prefix: the latter}."""
    groups = {}
    for name, value in entries.items():
        prefix, _, rest = name.partition('.')
        if rest and _is_average(prefix):
            groups.setdefault(prefix, {})[rest] = value
    kept = {name: value for name, value in entries.items() if name.partition('.')[0] not in groups}
    # A part of a network may have such a name as well; it does not have the names of all of it.
    averaged = {prefix: _without_counter(group) for prefix, group in groups.items()}
    averaged = {prefix: group for prefix, group in averaged.items() if set() < _bare(group) <= _bare(kept)}
    kept = {name: value for name, value in entries.items() if name.partition('.')[0] not in averaged}
    return _without_counter(kept), averaged


def _bare(entries):
    """Returns the names of tensors without the prefixes that all of them share."""
    names = set(_tensors(entries))
    for _ in range(DEEPEST):
        if not all('.' in name for name in names) or len({name.partition('.')[0] for name in names}) != 1:
            break
        names = {name.partition('.')[2] for name in names}
    return names


def _without_counter(entries):
    """Returns the state dict of PyTorch's `AveragedModel`, as it is around a model, without its counter."""
    tensors = _tensors(entries)
    if 'n_averaged' in tensors and all(name.startswith('module.') for name in tensors if name != 'n_averaged'):
        return {name: value for name, value in entries.items() if name != 'n_averaged'}
    return entries


def _tensors(entries: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in entries.items() if isinstance(value, (Tensor, np.ndarray))}


def _is_average(name):
    return not _AVERAGES.isdisjoint(re.split(r'[^a-z]+', name.lower()))


def _strangers(content):
    """Returns {key: kind} of the entries that are, or hold, something else than tensors and plain data."""
    found, seen = {}, set()
    for key, value in content.items():
        waiting = [value]
        while waiting and key not in found:
            one = waiting.pop()
            if isinstance(one, Placeholder):
                found[key] = one.name
            elif isinstance(one, (dict, list, tuple)) and id(one) not in seen:
                seen.add(id(one))  # it may hold itself, or one thing a thousand times
                waiting.extend(one.values() if isinstance(one, dict) else one)
    return found
