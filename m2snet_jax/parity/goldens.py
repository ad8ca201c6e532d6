"""Golden values that the released program's modules gave in float64, and what they came from.

A folder of goldens holds, for each model NAME, `NAME_golden.npz` and `NAME_golden.json` (what came out, and the `seed`
and `sizes` that it came from), `NAME_buffers.npz` (running statistics to start from) and, for all,
`state_dict_shapes.json` (PyTorch's names and shapes). Weights and inputs are rebuilt from the seed and their names.
"""

import json
import re
import zlib
from collections.abc import Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Float32, Float64

from m2snet_jax.build import MODELS
from m2snet_jax.errors import InputError
from m2snet_jax.models.batch_norm import at_least_float32
from m2snet_jax.models.lossnet import LossNet
from m2snet_jax.weights import load_state_dict

STATISTIC = re.compile(r'(running_mean|running_var|num_batches_tracked)$')


def _generator(name, seed):
    return np.random.RandomState((zlib.crc32(name.encode()) ^ (seed * 0x9E3779B1)) & 0xFFFFFFFF)


def seeded_tensor(name: str, shape: Sequence[int], seed: int) -> Float32[np.ndarray, '...']:
    """Returns the float32 parameter of a PyTorch name: He-normal kernels, scales in [½, 1½], small biases."""
    generator = _generator(name, seed)
    if len(shape) > 1:
        array = generator.standard_normal(shape) * np.sqrt(2.0 / int(np.prod(shape[1:])))
    elif name.endswith('weight'):
        array = generator.uniform(0.5, 1.5, shape)
    else:
        array = generator.standard_normal(shape) * 0.1
    return array.astype(np.float32)


def seeded_images(
    tag: str, batch: int, height: int, width: int, seed: int
) -> Float32[np.ndarray, 'batch height width 3']:
    """Returns normalised images."""
    images = _generator(f'image/{tag}', seed).standard_normal((batch, 3, height, width))
    return images.astype(np.float32).transpose(0, 2, 3, 1)


def seeded_masks(
    tag: str, batch: int, height: int, width: int, seed: int
) -> Float32[np.ndarray, 'batch height width 1']:
    """Returns soft masks of a few ellipses each, in [0, 1]."""
    generator = _generator(f'mask/{tag}', seed)
    y, x = np.mgrid[0:height, 0:width]
    masks = np.zeros((batch, height, width, 1), np.float32)
    for mask in masks[..., 0]:
        for _ in range(generator.randint(1, 4)):
            row, column = generator.uniform(0, height), generator.uniform(0, width)
            half_height, half_width = generator.uniform(0.08, 0.3) * height, generator.uniform(0.08, 0.3) * width
            distance = ((y - row) / half_height) ** 2 + ((x - column) / half_width) ** 2
            np.maximum(mask, np.clip((1.1 - distance) / 0.2, 0, 1), out=mask)
    return masks


def seeded_direction(name: str, shape: Sequence[int], seed: int) -> Float64[np.ndarray, '...']:
    """Returns the unit vector on which the tensor of a PyTorch name is projected."""
    direction = _generator(f'direction/{name}', seed).standard_normal(shape)
    return direction / np.linalg.norm(direction)


class Goldens:
    """Golden values of one model, `arrays` and `values` as stored, with the weights and inputs that they came from.

    Args:
        folder: of goldens.
        name: 'msnet' or 'm2snet'.
        weights: a state dict in place of the seeded one.

    Raises:
        InputError: a file is missing or cannot be read; or the weights do not fit.
    """

    def __init__(self, folder: str | Path, name: str, weights: dict[str, np.ndarray] | None = None):
        folder, self.name = Path(folder), name
        try:
            self.arrays = dict(np.load(folder / f'{name}_golden.npz'))
            self.values = json.loads((folder / f'{name}_golden.json').read_text())
            shapes = json.loads((folder / 'state_dict_shapes.json').read_text())
            self.seed, self.sizes = self.values['seed'], self.values['sizes']
            if weights is None:
                learned = {key: shape for key, shape in shapes[name].items() if not STATISTIC.search(key)}
                weights = {key: seeded_tensor(key, tuple(shape), self.seed) for key, shape in learned.items()}
                weights |= np.load(folder / f'{name}_buffers.npz')
            self.state_dict, self._vgg_shapes = weights, shapes['vgg16']
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f'--golden={folder}: no golden values of {name} found ({error})') from None

    def model(self, dtype: str) -> nnx.Module:
        """Returns the model in training mode; its parameters are in float64 for float64, else in float32."""
        kind, encoder = MODELS[self.name], self.values.get('encoder', 'res2net50')
        return self._loaded(dtype, lambda **how: kind(encoder, **how), self.state_dict)

    def lossnet(self, dtype: str) -> LossNet:
        """Returns a LossNet with seeded weights."""
        vgg = {key: seeded_tensor(f'vgg16/{key}', tuple(shape), self.seed) for key, shape in self._vgg_shapes.items()}
        return self._loaded(dtype, LossNet, vgg)

    def _loaded(self, dtype, kind, arrays):
        precision = {'dtype': dtype, 'param_dtype': at_least_float32(dtype)}
        return load_state_dict(nnx.eval_shape(lambda: kind(**precision, rngs=nnx.Rngs(0))), arrays)

    def images(self, tag: str, size: Sequence[int], dtype: str) -> Float[Array, 'batch height width 3']:
        """Returns seeded images in the dtype of the parameters; `size` is (batch, height, width)."""
        batch, height, width = size
        return jnp.asarray(seeded_images(tag, batch, height, width, self.seed), at_least_float32(dtype))

    def batch(self, tag: str, size: Sequence[int], dtype: str) -> dict[str, Array]:
        """Returns a batch of seeded images and masks, as the training step takes it."""
        batch, height, width = size
        masks = jnp.asarray(seeded_masks(tag, batch, height, width, self.seed), at_least_float32(dtype))
        return {'image': self.images(tag, size, dtype), 'mask': masks}
