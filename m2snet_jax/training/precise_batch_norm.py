"""Running statistics measured after training, as plain means over training batches ("precise batch norm").

Source: Wu and Johnson, Rethinking "Batch" in BatchNorm, arXiv 2105.07576.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from m2snet_jax.models.batch_norm import BatchNorm
from m2snet_jax.models.model_weights import ModelWeights, batch_stats_of, merge_model, split_model


def precise_batch_stats(
    graph: nnx.GraphDef, weights: ModelWeights, batches: Sequence[Float[Array, 'batch size size 3']]
) -> nnx.State:
    """Returns running statistics that are plain means over batches of images instead of moving averages.

    In a moving average with momentum 0.1 the last few batches have most of the weight, and in M2SNet, whose two shared
    batch norms are called twice by each unit, the last few units. The shared norms are measured first, over all their
    calls, then all others with the shared ones in evaluation mode, so that they get the inputs that they get in
    evaluation. The released program does not do this. It costs two forward passes for each batch.
    """
    model = merge_model(graph, weights, train=True)
    filters = list(model.pyramid.filters)
    shared = [full_one.norm for full_one in filters]
    others = [norm for _, norm in nnx.iter_graph(model) if isinstance(norm, BatchNorm) and norm not in shared]
    if shared:
        _measure(model, shared, batches, calls=2 * len(model.pyramid.units))
    for full_one in filters:
        full_one.eval()
    _measure(model, others, batches, calls=1)
    return batch_stats_of(model)


def _measure(model: nnx.Module, norms: Sequence[BatchNorm], batches: Sequence[Array], calls: int) -> None:
    """Sets the running statistics of `norms`, and of no other, to the means over all their calls on `batches`."""
    before = batch_stats_of(model)
    for norm in norms:
        norm.momentum = (1, 1 / (calls * len(batches)))  # a sum of equally weighted calls
        norm.mean[...], norm.var[...] = jnp.zeros_like(norm.mean[...]), jnp.zeros_like(norm.var[...])
    graph, weights = split_model(model)

    @jax.jit
    def add(weights, images):
        # Not by `merge_model`, which sets one mode: the shared norms may be in evaluation mode, the others are not.
        model = nnx.merge(graph, weights.params, weights.batch_stats, copy=True)
        model(images)
        return ModelWeights(weights.params, batch_stats_of(model))

    for images in batches:
        weights = add(weights, images)
    nnx.update(model, weights.batch_stats)
    measured = [(norm, norm.mean[...], norm.var[...]) for norm in norms]
    nnx.update(model, before)
    for norm, mean, var in measured:
        norm.mean[...], norm.var[...] = mean, var
