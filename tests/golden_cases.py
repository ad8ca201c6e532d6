"""The golden values of tests/golden as arrays in this project's layouts, and the errors they are compared by."""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from flax import nnx
from golden import seeded

import m2snet_jax
from m2snet_jax.weights import load_state_dict

FOLDER = Path(__file__).parent / 'golden'
SHAPES = json.loads((FOLDER / 'state_dict_shapes.json').read_text())
CLASSES = {'msnet': m2snet_jax.MSNet, 'm2snet': m2snet_jax.M2SNet}


class Golden:
    """The truths of one model: `arrays` and `values` as stored, and seeded weights and inputs."""

    def __init__(self, name):
        self.name = name
        self.arrays = dict(np.load(FOLDER / f'{name}_golden.npz'))
        self.values = json.loads((FOLDER / f'{name}_golden.json').read_text())
        self.seed, self.sizes = self.values['seed'], self.values['sizes']
        self.parameters = seeded.state_dict(SHAPES[name], self.seed)
        self.state_dict = {**self.parameters, **np.load(FOLDER / f'{name}_buffers.npz')}

    def model(self, dtype=jnp.float64, param_dtype=None):
        model = CLASSES[self.name](dtype=dtype, param_dtype=param_dtype or dtype, rngs=nnx.Rngs(0))
        return load_state_dict(model, self.state_dict)

    def lossnet(self, dtype=jnp.float64):
        vgg = {key: seeded.tensor(f'vgg16/{key}', shape, self.seed) for key, shape in SHAPES['vgg16'].items()}
        return load_state_dict(m2snet_jax.LossNet(dtype=dtype, param_dtype=dtype, rngs=nnx.Rngs(0)), vgg)

    def images(self, tag, batch, height, width, dtype=jnp.float64):
        return jnp.asarray(seeded.images(tag, batch, height, width, self.seed).transpose(0, 2, 3, 1), dtype)

    def masks(self, tag, batch, height, width, dtype=jnp.float64):
        return jnp.asarray(seeded.masks(tag, batch, height, width, self.seed).transpose(0, 2, 3, 1), dtype)

    def batch(self, tag, size):
        return {'image': self.images(tag, *size), 'mask': self.masks(tag, *size)}


def relative_error(ours, truth):
    """Largest absolute difference over the truth's largest absolute value."""
    ours, truth = np.asarray(ours, np.float64), np.asarray(truth, np.float64)
    assert ours.shape == truth.shape
    return np.abs(ours - truth).max() / np.abs(truth).max()


def projections(arrays, names):
    """Per name, (L2 norm, projection) of an array."""
    found = {}
    for name in names:
        array = np.asarray(arrays[name], np.float64)
        found[name] = np.linalg.norm(array), np.vdot(array, seeded.direction(name, array.shape, 1))
    return found


def pair_errors(pairs, truths):
    """Per name, the error of a pair (L2 norm, projection).

    Gradients of biases before a batch norm are zero but for rounding, so a pair's error is taken relative to its norm
    or to a millionth of the largest norm of the set, whichever is larger.
    """
    floor = 1e-6 * max(norm for norm, _ in truths.values())
    return {
        name: np.abs(np.subtract(pairs[name], truth)).max() / max(truth[0], floor) for name, truth in truths.items()
    }


def projection_errors(arrays, truths):
    """Per name, the error of an array by its pair (L2 norm, projection)."""
    return pair_errors(projections(arrays, truths), truths)


def statistics_errors(arrays, truths):
    """Per name, the error of (mean, L2 norm) against the stored pair, relative to the L2 norm."""
    errors = {}
    for name, truth in truths.items():
        array = np.asarray(arrays[name], np.float64)
        errors[name] = np.abs(np.subtract((array.mean(), np.linalg.norm(array)), truth)).max() / truth[1]
    return errors
