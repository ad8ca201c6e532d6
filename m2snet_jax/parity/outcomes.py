"""What the networks of this package compute from the inputs of goldens, in the form in which goldens store it."""

from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from m2snet_jax.models.losses import structure_loss, total_loss
from m2snet_jax.parity.differences import moments, projections
from m2snet_jax.parity.goldens import STATISTIC, Goldens
from m2snet_jax.training.optimizer import sgd, triangular
from m2snet_jax.training.step import create_train_state, make_train_step
from m2snet_jax.weights import state_dict

LOSSES = ('structure_loss_released', 'structure_loss_weighted', 'lossnet', 'total')
PEAK_LR = 0.002  # of the updates


class Outcomes:
    """One model in one dtype. Every program is compiled once, whatever weights run through it.

    Args:
        goldens: says which model, and on what it runs.
        dtype: of the convolutions, 'float64', 'float32' or 'bfloat16'.
    """

    def __init__(self, goldens: Goldens, dtype: str):
        self._goldens, self._dtype = goldens, dtype
        self._lossnet_graph, self._lossnet_params = nnx.split(goldens.lossnet(dtype))
        self._graph, *self._start = nnx.split(goldens.model(dtype), nnx.Param, nnx.BatchStat)
        self._learning_rate = triangular(PEAK_LR, goldens.sizes['steps'], 1)
        self._optimizer = sgd(self._learning_rate)
        self._predict = jax.jit(self._logits)
        self._update = make_train_step(self._graph, self._optimizer, self._lossnet_graph)

    def model(self) -> nnx.Module:
        """Returns a model with the weights of the goldens, in training mode, whose arrays are copies."""
        return nnx.merge(self._graph, *jax.tree.map(jnp.copy, self._start))

    def _logits(self, state, images):
        model = nnx.merge(self._graph, *state)
        model.eval()
        return model(images)

    def evaluation(self, model: nnx.Module, sizes: Iterable[Sequence[int]]) -> dict[str, np.ndarray]:
        """Returns {'eval_logits_BxHxW': logits} of `model` in evaluation mode, NCHW."""
        _, *state = nnx.split(model, nnx.Param, nnx.BatchStat)
        logits = {}
        for batch, height, width in sizes:
            images = self._goldens.images(f'eval{height}x{width}', (batch, height, width), self._dtype)
            logits[f'eval_logits_{batch}x{height}x{width}'] = _as_stored(self._predict(state, images))
        return logits

    def training_step(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Returns (arrays, values) of one forward and backward pass in training mode."""
        batch = self._goldens.batch('train', self._goldens.sizes['train'], self._dtype)
        graph, (params, batch_stats) = self._graph, self._start

        @jax.jit
        def step(params, batch_stats, lossnet_params, batch):
            def loss_of(params, nudge):
                model = nnx.merge(graph, params, batch_stats, copy=True)
                logits = model(batch['image']) + nudge
                total, parts = total_loss(logits, batch['mask'], nnx.merge(self._lossnet_graph, lossnet_params))
                weighted = structure_loss(logits, batch['mask'], 'weighted')
                losses = parts['structure'], weighted, parts['lossnet'], total
                return total, (logits, dict(zip(LOSSES, losses, strict=True)), nnx.state(model, nnx.BatchStat))

            gradients, outputs = jax.grad(loss_of, (0, 1), has_aux=True)(params, jnp.zeros_like(batch['mask']))
            return *gradients, *outputs

        gradients, nudge, logits, losses, new_stats = step(params, batch_stats, self._lossnet_params, batch)
        _, statistics = _learned_and_followed(nnx.merge(graph, params, new_stats))
        learned, _ = _learned_and_followed(nnx.merge(graph, gradients, batch_stats))
        values = {key: float(value) for key, value in losses.items()}
        values |= {'grads': projections(learned, self._goldens.seed), 'buffers_after_one_step': moments(statistics)}
        return {'train_logits': _as_stored(logits), 'train_logits_grad': _as_stored(nudge)}, values

    def trajectory(self, model: nnx.Module, reverse: bool = False) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Returns (arrays, values) during and after a few updates of `model` by the training step.

        With `reverse` each batch has its images in reverse order: the same mathematics, summed in another order.
        """
        sizes, rows = self._goldens.sizes, []
        graph, state = create_train_state(model, self._optimizer)
        for index in range(sizes['steps']):
            batch = self._goldens.batch(f'step{index}', sizes['size2' if index % 2 else 'train'], self._dtype)
            batch = jax.tree.map(lambda array: array[::-1], batch) if reverse else batch
            state, losses = self._update(state, self._lossnet_params, batch)
            row = {'lr': self._learning_rate(index), 'total': losses['loss']}
            row |= {key: losses[key] for key in ('structure', 'lossnet')}
            rows.append({key: float(value) for key, value in row.items()})
        model = nnx.merge(graph, state.params, state.batch_stats)
        learned, _ = _learned_and_followed(model)
        (logits,) = self.evaluation(model, sizes['eval'][:1]).values()
        values = {'trajectory': rows, 'params_after_trajectory': projections(learned, self._goldens.seed)}
        return {'eval_logits_after_trajectory': logits}, values


def _as_stored(maps):
    return np.asarray(maps, np.float64).transpose(0, 3, 1, 2)


def _learned_and_followed(model):
    """Returns a model's parameters and its running statistics, each under PyTorch's names."""
    arrays = state_dict(model)
    statistics = {name: array for name, array in arrays.items() if STATISTIC.search(name)}
    return {name: array for name, array in arrays.items() if name not in statistics}, statistics
