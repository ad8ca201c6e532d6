"""How the tensors of a file differ from those that a model holds, in sentences."""

import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Shaped

from m2snet_jax.models.subtraction import CHANNELS
from m2snet_jax.weights.placeholders import printable

Array = Shaped[np.ndarray, '...']
Shapes = Mapping[str, tuple[int, ...]]
_NETWORK = 'x5_dem_5.0.weight'  # every network has it, and neither an encoder nor a LossNet


def mismatches(
    shapes: Shapes,
    arrays: Mapping[str, Array],
    filters: Mapping[str, Array],
    may_be_left_over: Callable[[str], bool],
    shown: int | None = None,
) -> list[str]:
    """Returns one sentence for each way in which the arrays of a file do not fit a model.

    Args:
        shapes: of what the model holds, by PyTorch's names.
        arrays: of the file, by PyTorch's names.
        filters: the constant filters that a file may hold, with the values that they must have.
        may_be_left_over: whether a name that the model does not hold may be in the file.
        shown: names in each sentence; None: all.
    """
    missing = [name for name in shapes if name not in arrays]
    misshapen = [
        f'{name} is {tuple(np.shape(arrays[name]))}, not {shape}'
        for name, shape in shapes.items()
        if name in arrays and tuple(np.shape(arrays[name])) != shape
    ]
    counters = {name.replace('running_mean', 'num_batches_tracked') for name in shapes}
    known = {*shapes, *filters, *counters}
    unexpected = [name for name in arrays if name not in known and not may_be_left_over(name)]
    changed = [
        name
        for name, filter_ in filters.items()
        if name in arrays and not np.array_equal(np.asarray(arrays[name]), filter_)
    ]
    groups = {
        'missing': missing,
        'misshapen': misshapen,
        'unexpected': unexpected,
        'full-one filters that are not ones with zero bias': changed,
    }
    problems = [f'{len(names)} {group} ({_listed(names, shown)})' for group, names in groups.items() if names]
    if _NETWORK in shapes and _NETWORK in arrays:
        there, here = _switches_of({name: np.shape(array) for name, array in arrays.items()}), _switches_of(shapes)
        problems[:0] = [f'they are of a network with {there}, and this one has {here}'] if there != here else []
    return problems


def _listed(names: Sequence[str], shown: int | None) -> str:
    names, count = [printable(name) for name in names[:shown]], len(names)
    return ', '.join(names) + (f' and {count - len(names)} more' if count > len(names) else '')


def _switches_of(shapes: Shapes) -> str:
    """Returns the switches of a network as far as the names and shapes of its state dict show them."""
    units = {match[1] for name in shapes if (match := re.match(r'(x\d(?:_x\d)+)\.', name))}
    norms = (re.match(r'conv_(\d+)\.norm\.(?!num_batches)', name) for name in shapes)
    filters = {int(match[1]) for match in norms if match}
    columns = max((len(unit.split('_')) for unit in units), default=1)
    found = [f'columns={columns}', f'filters={tuple(sorted(filters))}']
    if units:
        inputs = max(shapes.get(f'{unit}.0.weight', ())[1:2] for unit in units)
        found.append(f'operation={"concatenate" if inputs > (CHANNELS,) else "subtract or add"}')
    return ', '.join(found)
