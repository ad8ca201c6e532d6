"""One training step: all of training's maths on one screen."""

from typing import Any

import jax
import optax
from flax import nnx, struct

from m2snet_jax.model.layers import resize
from m2snet_jax.model.losses import total_loss


@struct.dataclass
class TrainState:
    """Everything a run needs to go on: `step` (int32), parameters, running statistics, momentum."""

    step: Any
    params: Any
    batch_stats: Any
    opt_state: Any


def create_train_state(model, optimizer):
    """Returns (graph, state): the model's structure, and its values beside a fresh optimizer state."""
    graph, params, batch_stats = nnx.split(model, nnx.Param, nnx.BatchStat)
    step = jax.numpy.zeros((), jax.numpy.int32)
    return graph, TrainState(step, params, batch_stats, optimizer.init(params))


def make_train_step(graph, optimizer, lossnet_graph=None, *, bce='mean', lossnet_weight=0.1, fix_filters_at=None):
    """Returns the jitted `train_step(state, lossnet_params, batch, size) → (state, losses)`.

    Args:
        graph: of the model in training mode, from `create_train_state`.
        optimizer: an optax transformation.
        lossnet_graph: of a LossNet, None to go without. Its parameters are an argument of the step, since closing
            over them would compile their 30 MB into the program of every size.
        bce: as in `structure_loss`.
        lossnet_weight: as in `total_loss`.
        fix_filters_at: step from which on the shared norms of the full-one filters keep their statistics; None: never.

    The step takes `batch['image']` `[B, S, S, 3]` normalised and `batch['mask']` `[B, S, S, C]` in [0, 1], resizes
    both on the device to `size` (static: one program a size; None leaves them as they are) and returns the new state
    and the scalars `loss` and its parts, taken before the update. The old state is donated.
    """

    def train_step(state, lossnet_params, batch, size=None):
        images, mask = batch['image'], batch['mask']
        if size is not None:
            images, mask = resize(images, size, size), resize(mask, size, size)
        lossnet = None if lossnet_graph is None else nnx.merge(lossnet_graph, lossnet_params)
        fixed = None if fix_filters_at is None else state.step >= fix_filters_at

        def loss_of(params):
            model = nnx.merge(graph, params, state.batch_stats, copy=True)
            loss, parts = total_loss(model(images, fixed), mask, lossnet, bce=bce, lossnet_weight=lossnet_weight)
            return loss, (parts, nnx.state(model, nnx.BatchStat))

        (loss, (parts, batch_stats)), gradients = jax.value_and_grad(loss_of, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return TrainState(state.step + 1, params, batch_stats, opt_state), {'loss': loss, **parts}

    return jax.jit(train_step, donate_argnums=0, static_argnames='size')
