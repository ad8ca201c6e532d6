"""Parity with the released program: golden values that its modules gave in float64, and our errors against them.

A folder of goldens holds, for each model NAME, `NAME_golden.npz` and `NAME_golden.json` (what came out, and the `seed`
and `sizes` that it came from), `NAME_buffers.npz` (running statistics to start from) and, for all,
`state_dict_shapes.json` (PyTorch's names and shapes). Weights and inputs are rebuilt from the seed and their names.
"""

import json
import re
import zlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from m2snet_jax.errors import InputError
from m2snet_jax.model.layers import at_least_float32
from m2snet_jax.model.losses import structure_loss, total_loss
from m2snet_jax.model.lossnet import LossNet
from m2snet_jax.predictor import MODELS
from m2snet_jax.weights import load_state_dict, state_dict

NAMES = ('msnet', 'm2snet')
LOSSES = ('structure_loss_released', 'structure_loss_weighted', 'lossnet', 'total')
STATISTIC = re.compile(r'(running_mean|running_var|num_batches_tracked)$')
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


def _generator(name, seed):
    return np.random.RandomState((zlib.crc32(name.encode()) ^ (seed * 0x9E3779B1)) & 0xFFFFFFFF)


def seeded_tensor(name, shape, seed):
    """Returns the float32 parameter of a PyTorch name: He-normal kernels, scales in [½, 1½], small biases."""
    generator = _generator(name, seed)
    if len(shape) > 1:
        array = generator.standard_normal(shape) * np.sqrt(2.0 / int(np.prod(shape[1:])))
    elif name.endswith('weight'):
        array = generator.uniform(0.5, 1.5, shape)
    else:
        array = generator.standard_normal(shape) * 0.1
    return array.astype(np.float32)


def seeded_images(tag, batch, height, width, seed):
    """Returns normalised images, float32 `[batch, height, width, 3]`."""
    images = _generator(f'image/{tag}', seed).standard_normal((batch, 3, height, width))
    return images.astype(np.float32).transpose(0, 2, 3, 1)


def seeded_masks(tag, batch, height, width, seed):
    """Returns soft masks of a few ellipses each, float32 `[batch, height, width, 1]` in [0, 1]."""
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


def seeded_direction(name, shape, seed):
    """Returns the float64 unit vector on which the tensor of a PyTorch name is projected."""
    direction = _generator(f'direction/{name}', seed).standard_normal(shape)
    return direction / np.linalg.norm(direction)


class Goldens:
    """What the released program gave for one model: `arrays` and `values` as stored, and the weights and inputs.

    Args:
        folder: of goldens.
        name: 'msnet' or 'm2snet'.
        weights: a state dict to take in place of the seeded one.

    Raises:
        InputError: a file is missing or cannot be read; or the weights do not fit.
    """

    def __init__(self, folder, name, weights=None):
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
            raise InputError(f'--golden={folder}: no goldens of {name} there ({error})') from None

    def model(self, dtype):
        """Returns the model in training mode; its parameters are in float64 for float64, else in float32."""
        kind, encoder = MODELS[self.name], self.values.get('encoder', 'res2net50')
        precision = {'dtype': dtype, 'param_dtype': at_least_float32(dtype)}
        return load_state_dict(nnx.eval_shape(lambda: kind(encoder, **precision, rngs=nnx.Rngs(0))), self.state_dict)

    def lossnet(self, dtype):
        vgg = {key: seeded_tensor(f'vgg16/{key}', tuple(shape), self.seed) for key, shape in self._vgg_shapes.items()}
        lossnet = LossNet(dtype=dtype, param_dtype=at_least_float32(dtype), rngs=nnx.Rngs(0))
        return load_state_dict(lossnet, vgg)

    def images(self, tag, size, dtype):
        """Returns seeded images `[B, H, W, 3]` in the parameters' dtype; `size` is (B, H, W)."""
        return jnp.asarray(seeded_images(tag, *size, self.seed), at_least_float32(dtype))

    def batch(self, tag, size, dtype):
        """Returns a batch of seeded images and masks, as the training step takes it."""
        masks = jnp.asarray(seeded_masks(tag, *size, self.seed), at_least_float32(dtype))
        return {'image': self.images(tag, size, dtype), 'mask': masks}


def evaluation_logits(goldens, dtype, model, sizes):
    """Returns {'eval_logits_BxHxW': logits} in evaluation mode, as the goldens store them (NCHW)."""
    model.eval()
    graph, state = nnx.split(model)
    run, logits = jax.jit(lambda state, images: nnx.merge(graph, state)(images)), {}
    for batch, height, width in sizes:
        images = goldens.images(f'eval{height}x{width}', (batch, height, width), dtype)
        logits[f'eval_logits_{batch}x{height}x{width}'] = _as_stored(run(state, images))
    return logits


def training_step(goldens, dtype):
    """Returns (arrays, values) of one forward and backward pass in training mode, as the goldens store them."""
    batch = goldens.batch('train', goldens.sizes['train'], dtype)
    graph, params, batch_stats = nnx.split(goldens.model(dtype), nnx.Param, nnx.BatchStat)
    lossnet_graph, lossnet_params = nnx.split(goldens.lossnet(dtype))

    @jax.jit
    def step(params, batch_stats, lossnet_params, batch):
        def loss_of(params, nudge):
            model = nnx.merge(graph, params, batch_stats, copy=True)
            logits = model(batch['image']) + nudge
            total, parts = total_loss(logits, batch['mask'], nnx.merge(lossnet_graph, lossnet_params))
            weighted = structure_loss(logits, batch['mask'], 'weighted')
            losses = parts['structure'], weighted, parts['lossnet'], total
            return total, (logits, dict(zip(LOSSES, losses, strict=True)), nnx.state(model, nnx.BatchStat))

        gradients, outputs = jax.grad(loss_of, (0, 1), has_aux=True)(params, jnp.zeros_like(batch['mask']))
        return *gradients, *outputs

    gradients, nudge, logits, losses, new_stats = step(params, batch_stats, lossnet_params, batch)
    statistics = {
        key: value for key, value in state_dict(nnx.merge(graph, params, new_stats)).items() if STATISTIC.search(key)
    }
    learned = {
        key: value
        for key, value in state_dict(nnx.merge(graph, gradients, batch_stats)).items()
        if not STATISTIC.search(key)
    }
    values = {key: float(value) for key, value in losses.items()}
    values |= {'grads': projections(learned, goldens.seed), 'buffers_after_one_step': _moments(statistics)}
    return {'train_logits': _as_stored(logits), 'train_logits_grad': _as_stored(nudge)}, values


def _as_stored(maps):
    return np.asarray(maps, np.float64).transpose(0, 3, 1, 2)


def projections(arrays, seed):
    """Returns {name: [L2 norm, projection on the seeded direction]}."""
    wide = {name: np.asarray(array, np.float64) for name, array in arrays.items()}
    return {
        name: [np.linalg.norm(array), np.vdot(array, seeded_direction(name, array.shape, seed))]
        for name, array in wide.items()
    }


def _moments(arrays):
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
