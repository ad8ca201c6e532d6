"""The kernels of a program compiled for a GPU, counted by kind from its text."""

import re

from m2snet_jax.planning.cycles import read_computations

_TARGET = re.compile(r'\bcustom_call_target="(?P<target>[^"]*)"')
_FUSION = re.compile(r' fusion\(.*\bcalls=%?(?P<name>[\w.\-]+)')
_COPY = re.compile(r' copy(?:-start)?\(')
_LIBRARIES = {'__cudnn$conv': 'convolutions', '__cublas': 'matrix products'}  # by the beginning of a call's target


def count_kernels(text: str) -> dict[str, int] | None:
    """Counts the kernels of a compiled program, the text of `compiled.as_text()`, that one step starts.

    A kernel in a loop counts once. A fusion's kind is read off the name that XLA gives it: 'transposes' change the
    layout of a map, e.g. between two convolutions, 'reductions' are mostly the sums of batch norm.

    Returns:
        {'convolutions', 'matrix products', 'transposes', 'reductions', 'other fusions', 'copies': number of kernels},
        those that occur; None for a program of another platform.
    """
    entry, computations = read_computations(text)
    found: dict[str, int] = {}
    for line in computations[entry] if entry else ():
        if kind := _kind(line):
            found[kind] = found.get(kind, 0) + 1
    return found if {'convolutions', 'matrix products'} & found.keys() else None


def _kind(line):
    """Returns the kind of kernel of an operation, None if it starts none."""
    if target := _TARGET.search(line):
        return next((kind for begin, kind in _LIBRARIES.items() if target['target'].startswith(begin)), None)
    if fusion := _FUSION.search(line):
        name = fusion['name'].replace('reduce_window', '')
        if 'transpose' in name:
            return 'transposes'
        return 'reductions' if 'reduce' in name else 'other fusions'
    return 'copies' if _COPY.search(line) else None
