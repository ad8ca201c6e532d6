"""One training step: all of training's maths on one screen."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx, struct

from m2snet_jax.mesh import compiler_options, everywhere
from m2snet_jax.model.layers import BatchNorm, resize
from m2snet_jax.model.losses import total_loss


@struct.dataclass
class TrainState:
    """Everything a run needs to go on.

    Attributes:
        step: int32, steps made.
        params, batch_stats: of the model.
        opt_state: momentum and the step of the rate.
        average: (params, batch_stats) averaged over the steps, None without `ema`.
    """

    step: Any
    params: Any
    batch_stats: Any
    opt_state: Any
    average: Any = None

    @property
    def evaluated(self):
        """(params, batch_stats) with which to predict: the averaged ones where there are any."""
        return (self.params, self.batch_stats) if self.average is None else self.average

    def with_statistics(self, batch_stats):
        """Returns the state with other running statistics for prediction."""
        if self.average is None:
            return self.replace(batch_stats=batch_stats)
        return self.replace(average=(self.average[0], batch_stats))


def create_train_state(model, optimizer, *, average=False, mesh=None):
    """Returns (graph, state): the model's structure, and its values beside a fresh optimizer state.

    Args:
        model: in training mode.
        optimizer: an optax transformation.
        average: keep averaged weights beside.
        mesh: over which batches will be split, None for a single device.
    """
    if mesh is not None and mesh.size > 1:
        model.set_attributes(BatchNorm, across=everywhere(mesh))
    graph, params, batch_stats = nnx.split(model, nnx.Param, nnx.BatchStat)
    kept = jax.tree.map(jnp.copy, (params, batch_stats)) if average else None  # donated beside the originals
    return graph, TrainState(jnp.zeros((), jnp.int32), params, batch_stats, optimizer.init(params), kept)


def make_train_step(
    graph,
    optimizer,
    lossnet_graph=None,
    *,
    bce='mean',
    lossnet_weight=0.1,
    fix_filters_at=None,
    accumulate=1,
    ema=None,
):
    """Returns the jitted `train_step(state, lossnet_params, batch, size) → (state, losses)`.

    Args:
        graph: of the model in training mode, from `create_train_state`.
        optimizer: an optax transformation.
        lossnet_graph: of a LossNet, None to go without. Its parameters are an argument of the step, since closing
            over them would compile their 30 MB into the program of every size.
        bce: as in `structure_loss`.
        lossnet_weight: as in `total_loss`.
        fix_filters_at: step from which on the shared norms of the full-one filters keep their statistics; None: never.
        accumulate: parts in which the batch is worked on, one after the other, for less memory. The gradient is the
            mean over them; batch norm sees each part by itself and follows it with its running statistics.
        ema: decay of the averaged weights; None: there are none.

    The step takes `batch['image']` `[B, S, S, 3]` normalised and `batch['mask']` `[B, S, S, C]` in [0, 1], resizes
    both on the device to `size` (static: one program a size; None leaves them as they are) and returns the new state
    and the scalars `loss` and its parts, taken before the update. The old state is donated.
    """

    def train_step(state, lossnet_params, batch, size=None):
        lossnet = None if lossnet_graph is None else nnx.merge(lossnet_graph, lossnet_params)
        fixed = None if fix_filters_at is None else state.step >= fix_filters_at

        def loss_of(params, batch_stats, batch):
            images, mask = batch['image'], batch['mask']
            if size is not None:
                images, mask = resize(images, size, size), resize(mask, size, size)
            model = nnx.merge(graph, params, batch_stats, copy=True)
            loss, parts = total_loss(model(images, fixed), mask, lossnet, bce=bce, lossnet_weight=lossnet_weight)
            return loss, ({'loss': loss, **parts}, nnx.state(model, nnx.BatchStat))

        gradient_of = jax.grad(loss_of, has_aux=True)

        def add_part(batch_stats_and_sum, part):
            batch_stats, total = batch_stats_and_sum
            gradients, (losses, batch_stats) = gradient_of(state.params, batch_stats, part)
            return (batch_stats, jax.tree.map(jnp.add, total, gradients)), losses

        if accumulate == 1:
            gradients, (losses, batch_stats) = gradient_of(state.params, state.batch_stats, batch)
        else:
            start = state.batch_stats, jax.tree.map(jnp.zeros_like, state.params)
            (batch_stats, total), losses = jax.lax.scan(add_part, start, _parts(batch, accumulate))
            gradients, losses = jax.tree.map(lambda sum_: sum_ / accumulate, total), jax.tree.map(jnp.mean, losses)

        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        average = None if ema is None else _averaged(state.average, (params, batch_stats), ema, state.step)
        return TrainState(state.step + 1, params, batch_stats, opt_state, average), losses

    return jax.jit(train_step, donate_argnums=0, static_argnames='size', compiler_options=compiler_options())


def _parts(batch, count):
    """Deals the rows of a batch into `count` parts, one row after the other: every device keeps its own rows."""
    return jax.tree.map(
        lambda rows: jnp.moveaxis(rows.reshape(rows.shape[0] // count, count, *rows.shape[1:]), 1, 0), batch
    )


def _averaged(average, now, decay, step):
    """Moves the averaged weights towards those of now; in the first steps faster, so that the start is forgotten."""
    step = jnp.asarray(step, float)
    decay = jnp.minimum(decay, (1 + step) / (10 + step))
    return jax.tree.map(lambda old, new: (old + (1 - decay) * (new - old)).astype(old.dtype), average, now)
