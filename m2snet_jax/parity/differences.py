"""Relative errors of outcomes against golden values, and the parts of the network that they are in."""

import re
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from m2snet_jax.parity.goldens import seeded_direction

Array = Float[np.ndarray, '...']
# The parts of the network, in the order of the data flow, by PyTorch's names.
_PARTS = (
    ('encoder stem', r'resnet\.(conv1|bn1)\.'),
    *((f'encoder stage {number}', rf'resnet\.layer{number}\.') for number in range(1, 5)),
    ('reduction', r'x\d_dem_1\.'),
    ('full-one filters', r'conv_\d+\.'),
    ('unit {0}', r'(x\d(?:_x\d)+)\.'),
    ('x5_dem_4', r'x5_dem_4\.'),
    ('enhancement', r'level\d\.'),
    ('decoder', r'(x5_dem_5|output\d)\.'),
)


def projections(arrays: Mapping[str, Array], seed: int) -> dict[str, list[float]]:
    """Returns {name: [L2 norm, projection on the seeded direction]}."""
    wide = {name: np.asarray(array, np.float64) for name, array in arrays.items()}
    return {
        name: [float(np.linalg.norm(array)), float(np.vdot(array, seeded_direction(name, array.shape, seed)))]
        for name, array in wide.items()
    }


def moments(arrays: Mapping[str, Array]) -> dict[str, list[float]]:
    """Returns {name: [mean, L2 norm]}."""
    wide = {name: np.asarray(array, np.float64) for name, array in arrays.items()}
    return {name: [float(array.mean()), float(np.linalg.norm(array))] for name, array in wide.items()}


def array_error(values: Array, golden: Array) -> float:
    """Returns the largest absolute difference over the golden's largest absolute value, ∞ for another shape."""
    return np.abs(values - golden).max() / np.abs(golden).max() if np.shape(values) == np.shape(golden) else np.inf


def projection_errors(
    values: Mapping[str, Sequence[float]], goldens: Mapping[str, Sequence[float]]
) -> dict[str, float]:
    """Returns {name: error} of pairs from `projections`, relative to the norm.

    Gradients of biases before a batch norm are zero but for rounding, so what a difference is divided by is never less
    than a millionth of the largest norm of the set.
    """
    floor = 1e-6 * max(norm for norm, _ in goldens.values())
    return _pair_errors(values, goldens, {name: max(norm, floor) for name, (norm, _) in goldens.items()})


def moment_errors(values: Mapping[str, Sequence[float]], goldens: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Returns {name: error} of pairs [mean, L2 norm], relative to the L2 norm."""
    return _pair_errors(values, goldens, {name: norm for name, (_, norm) in goldens.items()})


def _pair_errors(values, goldens, scales):
    return {
        name: np.abs(np.subtract(values[name], golden)).max() / scales[name] if name in values else np.inf
        for name, golden in goldens.items()
    }


def by_part(errors: Mapping[str, float]) -> dict[str, tuple[float, str]]:
    """Returns {part of the network: (largest error, its PyTorch name)}, parts in the order of the data flow."""
    parts = {}
    for order, (part, pattern) in enumerate(_PARTS):
        for name, error in errors.items():
            if match := re.match(pattern, name):
                parts.setdefault((order, part.format(*match.groups())), []).append((error, name))
    ordered = sorted(parts.items(), key=lambda item: (item[0][0], item[0][1].count('_')))
    return {part: max(found, key=lambda pair: (np.isnan(pair[0]), pair[0])) for (_, part), found in ordered}
