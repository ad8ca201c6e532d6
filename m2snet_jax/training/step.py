"""One training step: loss, gradient, update."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx, struct
from jax.stages import Lowered
from jaxtyping import Array, Int, PyTree

from m2snet_jax.build import build_lossnet, build_model
from m2snet_jax.devices.mesh import Mesh, abstract, packs_maps, replicated
from m2snet_jax.devices.programs import compiler_options
from m2snet_jax.models.batch_norm import BatchNorm
from m2snet_jax.models.layers import resize
from m2snet_jax.models.losses import total_loss
from m2snet_jax.models.model_weights import ModelWeights, batch_stats_of, merge_model, split_model
from m2snet_jax.training.optimizer import build_optimizer

Optimizer = optax.GradientTransformation


class TrainState(struct.PyTreeNode):
    """Everything that a run needs to continue."""

    step: Int[Array, '']  # number of steps made
    params: Any
    batch_stats: Any
    opt_state: optax.OptState  # momentum and the step of the learning rate
    ema: ModelWeights | None = None  # averaged over the steps, None without `config.ema`

    @property
    def eval_weights(self) -> ModelWeights:
        """The weights to predict with: the averaged ones where there are any."""
        return ModelWeights(self.params, self.batch_stats) if self.ema is None else self.ema

    def with_statistics(self, batch_stats: nnx.State) -> 'TrainState':
        """Returns the state with other running statistics for prediction."""
        if self.ema is None:
            return self.replace(batch_stats=batch_stats)
        return self.replace(ema=self.ema.replace(batch_stats=batch_stats))


def create_train_state(
    model: nnx.Module, optimizer: Optimizer, *, ema: bool = False, mesh: Mesh | None = None
) -> tuple[nnx.GraphDef, TrainState]:
    """Returns the structure of a model in training mode, and its values with a new optimizer state.

    With `ema` the state also has averaged weights. Batches are split over the devices of `mesh`; None: a single device.
    """
    if mesh is not None:
        arrange_for(mesh, model)
    graph, weights = split_model(model)
    averaged = jax.tree.map(jnp.copy, weights) if ema else None  # a copy, since both are donated
    opt_state = optimizer.init(weights.params)
    return graph, TrainState(jnp.zeros((), jnp.int32), weights.params, weights.batch_stats, opt_state, averaged)


def arrange_for(mesh: Mesh, module: nnx.Module) -> None:
    """Sets, in place, what a model or a LossNet does otherwise on the devices that it is trained on."""
    if mesh.size > 1:
        module.set_attributes(BatchNorm, stats_sharding=replicated(mesh), raise_if_not_found=False)
    if packs_maps(mesh):
        module.set_attributes(packed=True, raise_if_not_found=False)


def make_train_step(
    graph: nnx.GraphDef,
    optimizer: Optimizer,
    lossnet_graph: nnx.GraphDef | None = None,
    *,
    bce: str = 'mean',
    lossnet_weight: float = 0.1,
    freeze_shared_norms_at: int | None = None,
    gradient_accumulation: int = 1,
    ema: float | None = None,
    drop_path_seed: int | None = None,
) -> Callable[..., tuple[TrainState, dict[str, Array]]]:
    """Returns the jitted `train_step(state, lossnet_params, batch, size) → (state, losses)`.

    Args:
        graph: of the model in training mode, from `create_train_state`.
        lossnet_graph: of a LossNet, None for no LossNet. Its parameters are an argument of the step: as constants
            their 30 MB would be part of the program of every size.
        bce, lossnet_weight: as in `total_loss`.
        freeze_shared_norms_at: step from which the shared norms of the full-one filters keep their statistics; None:
            never.
        gradient_accumulation: number of parts into which the batch is split, computed one after the other to save
            memory. The gradient is the mean over them. Batch norm normalises each part separately and updates its
            running statistics after each.
        ema: decay of the averaged weights; None for no averaging.
        drop_path_seed: seed of the keys for drop path, one for each step and part of a batch; None: no path is dropped.

    The step takes `batch['image']`, normalised, and `batch['mask']` in [0, 1]. It resizes both on the device to `size`
    (static: one program for each size; None for no resize). It returns the new state and the scalars `loss` and its
    parts, computed before the update. The old state is donated.
    """

    def train_step(state: TrainState, lossnet_params: Any, batch: dict[str, Array], size: int | None = None):
        lossnet = None if lossnet_graph is None else nnx.merge(lossnet_graph, lossnet_params)
        frozen = None if freeze_shared_norms_at is None else state.step >= freeze_shared_norms_at
        key = None if drop_path_seed is None else jax.random.fold_in(jax.random.key(drop_path_seed), state.step)

        def loss_of(params, batch_stats, batch, key):
            images, mask = batch['image'], batch['mask']
            if size is not None:
                images, mask = resize(images, size, size), resize(mask, size, size)
            model = merge_model(graph, ModelWeights(params, batch_stats), train=True)
            logits = model(images, key, frozen=frozen)
            with jax.named_scope('loss'):
                loss, parts = total_loss(logits, mask, lossnet, bce=bce, lossnet_weight=lossnet_weight)
            return loss, ({'loss': loss, **parts}, batch_stats_of(model))

        gradient_of = jax.grad(loss_of, has_aux=True)

        def add_part(batch_stats_and_sum, part_and_key):
            batch_stats, total = batch_stats_and_sum
            gradients, (losses, batch_stats) = gradient_of(state.params, batch_stats, *part_and_key)
            return (batch_stats, jax.tree.map(jnp.add, total, gradients)), losses

        if gradient_accumulation == 1:
            gradients, (losses, batch_stats) = gradient_of(state.params, state.batch_stats, batch, key)
        else:
            start = state.batch_stats, jax.tree.map(jnp.zeros_like, state.params)
            keys = None if key is None else jax.random.split(key, gradient_accumulation)
            parts = _parts(batch, gradient_accumulation), keys
            (batch_stats, total), losses = jax.lax.scan(add_part, start, parts)
            gradients = jax.tree.map(lambda sum_: sum_ / gradient_accumulation, total)
            losses = jax.tree.map(jnp.mean, losses)

        with jax.named_scope('optimizer'):
            updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
            params = optax.apply_updates(state.params, updates)
        averaged = None if ema is None else _averaged(state.ema, ModelWeights(params, batch_stats), ema, state.step)
        return TrainState(state.step + 1, params, batch_stats, opt_state, averaged), losses

    return jax.jit(train_step, donate_argnums=0, static_argnames='size', compiler_options=compiler_options())


def _parts(batch: PyTree[Array], count: int) -> Any:
    """Splits a batch into `count` parts, taking every `count`-th row, so that every device keeps its own rows."""
    return jax.tree.map(
        lambda rows: jnp.moveaxis(rows.reshape(rows.shape[0] // count, count, *rows.shape[1:]), 1, 0), batch
    )


@jax.named_scope('ema')
def _averaged(before: Any, now: Any, decay: float, step: Array) -> Any:
    """Moves the averaged weights towards the new ones; faster at first, to forget the initial weights."""
    step = jnp.asarray(step, float)
    kept = jnp.minimum(decay, (1 + step) / (10 + step))
    return jax.tree.map(lambda old, new: (old + (1 - kept) * (new - old)).astype(old.dtype), before, now)


def build_train_step(
    config: Any, total: int, graph: nnx.GraphDef, optimizer: Optimizer, lossnet_graph: nnx.GraphDef | None
) -> Callable[..., tuple[TrainState, dict[str, Array]]]:
    """Returns the training step of a config for a run of `total` steps, as `make_train_step` does."""
    freeze_shared_norms_after = config.model.freeze_shared_norms_after
    return make_train_step(
        graph,
        optimizer,
        lossnet_graph,
        bce=config.loss.bce,
        lossnet_weight=config.loss.lossnet,
        freeze_shared_norms_at=None if freeze_shared_norms_after == 1 else math.ceil(freeze_shared_norms_after * total),
        gradient_accumulation=config.gradient_accumulation,
        ema=config.ema,
        drop_path_seed=config.seed if config.model.drop_path else None,
    )


def lower_train_step(config: Any, mesh: Mesh, total: int, epoch_steps: int) -> Callable[[int], Lowered]:
    """Returns a function that lowers the training step of a size, for arrays as the training loop has them.

    Only shapes are computed: nothing is allocated, and no file of weights is read. The compiled program takes
    `(state, lossnet_params, batch)`, all on `mesh`, without the size.
    """
    config = without_files(config)

    @functools.cache
    def everything() -> Any:  # computed when the first size is lowered, which may be in another thread
        optimizer, averaged = build_optimizer(config, total, epoch_steps), config.ema is not None
        graph, state = jax.eval_shape(
            lambda: create_train_state(build_model(config), optimizer, ema=averaged, mesh=mesh)
        )
        lossnet_graph, lossnet_params = None, None
        if (lossnet := nnx.eval_shape(lambda: build_lossnet(config))) is not None:
            arrange_for(mesh, lossnet)
            lossnet_graph, lossnet_params = nnx.split(lossnet)
        shape = (config.batch, config.data.size, config.data.size)
        batch = {
            'image': jax.ShapeDtypeStruct((*shape, 3), jnp.float32),
            'mask': jax.ShapeDtypeStruct((*shape, config.data.classes), jnp.float32),
        }
        arguments = *abstract((state, lossnet_params), mesh), abstract(batch, mesh, split=True)
        return build_train_step(config, total, graph, optimizer, lossnet_graph), arguments

    def lower(size: int) -> Lowered:
        train_step, arguments = everything()
        return train_step.lower(*arguments, size)

    return lower


def without_files(config: Any) -> Any:
    """Returns a copy of a config that starts from random weights; shapes are the same."""
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.model.encoder_weights = config.model.weights = config.loss.lossnet_weights = None
    return config
