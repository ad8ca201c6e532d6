"""How far outcomes are from golden values, as relative errors, and the parts of the network that they belong to."""

import re

import numpy as np

from m2snet_jax.parity.goldens import seeded_direction

# The parts of the network, in the order in which data flow, by PyTorch's names.
_PARTS = (
    ('encoder stem', r'resnet\.(conv1|bn1)\.'),
    *((f'encoder stage {number}', rf'resnet\.layer{number}\.') for number in range(1, 5)),
    ('reduction', r'x\d_dem_1\.'),
    ('full-one filters', r'conv_[35]\.'),
    ('unit {0}', r'(x\d(?:_x\d)+)\.'),
    ('x5_dem_4', r'x5_dem_4\.'),
    ('enhancement', r'level\d\.'),
    ('decoder', r'(x5_dem_5|output\d)\.'),
)


def projections(arrays, seed):
    """Returns {name: [L2 norm, projection on the seeded direction]}."""
    wide = {name: np.asarray(array, np.float64) for name, array in arrays.items()}
    return {
        name: [np.linalg.norm(array), np.vdot(array, seeded_direction(name, array.shape, seed))]
        for name, array in wide.items()
    }


def moments(arrays):
    """Returns {name: [mean, L2 norm]}."""
    wide = {name: np.asarray(array, np.float64) for name, array in arrays.items()}
    return {name: [array.mean(), np.linalg.norm(array)] for name, array in wide.items()}


def array_error(ours, truth):
    """Returns the largest absolute difference over the truth's largest absolute value, ∞ for another shape."""
    return np.abs(ours - truth).max() / np.abs(truth).max() if np.shape(ours) == np.shape(truth) else np.inf


def projection_errors(ours, truths):
    """Returns {name: error} of pairs from `projections`, relative to the norm.

    Gradients of biases before a batch norm are zero but for rounding, so what a difference is divided by is never less
    than a millionth of the largest norm of the set.
    """
    floor = 1e-6 * max(norm for norm, _ in truths.values())
    return _pair_errors(ours, truths, {name: max(norm, floor) for name, (norm, _) in truths.items()})


def moment_errors(ours, truths):
    """Returns {name: error} of pairs [mean, L2 norm], relative to the L2 norm."""
    return _pair_errors(ours, truths, {name: norm for name, (_, norm) in truths.items()})


def _pair_errors(ours, truths, scales):
    return {
        name: np.abs(np.subtract(ours[name], truth)).max() / scales[name] if name in ours else np.inf
        for name, truth in truths.items()
    }


def by_part(errors):
    """Returns {part of the network: (largest error, its PyTorch name)}, parts in the order in which data flow."""
    parts = {}
    for order, (part, pattern) in enumerate(_PARTS):
        for name, error in errors.items():
            if match := re.match(pattern, name):
                parts.setdefault((order, part.format(*match.groups())), []).append((error, name))
    ordered = sorted(parts.items(), key=lambda item: (item[0][0], item[0][1].count('_')))
    return {part: max(found, key=lambda pair: (np.isnan(pair[0]), pair[0])) for (_, part), found in ordered}
