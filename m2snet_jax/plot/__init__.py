"""What people look at: pictures of cases and features as arrays, charts as SVG; also for notebooks.

The names below are loaded when first used: the processes that score need no JAX.
"""

import importlib

_HOMES = {
    'case_panels': 'pictures',
    'curves': 'history',
    'grid': 'pictures',
    'overlay': 'pictures',
    'pyramid': 'features',
    'pyramid_maps': 'features',
}
__all__ = [*_HOMES]


def __getattr__(name):
    if name in _HOMES:
        return getattr(importlib.import_module(f'{__name__}.{_HOMES[name]}'), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
