"""From a model, or the maps of any program, to files that people can trust: maps, score sheets, comparisons.

The names below are loaded when first used: the processes that score need no JAX.
"""

import importlib

_HOMES = {
    'evaluate': 'sets',
    'evaluate_maps': 'sets',
    'read_summary': 'sheet',
    'sample_panels': 'sets',
    'write_summary': 'sheet',
}
__all__ = [*_HOMES]


def __getattr__(name):
    if name in _HOMES:
        return getattr(importlib.import_module(f'{__name__}.{_HOMES[name]}'), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
