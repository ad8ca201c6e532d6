"""Running statistics taken anew after training, as plain means over training batches."""

import jax
import jax.numpy as jnp
from flax import nnx

from m2snet_jax.model.layers import BatchNorm
from m2snet_jax.model.subtraction import TRIANGLE


def recalibrate(graph, params, batch_stats, batches):
    """Returns running statistics that are plain means over `batches`, in place of the moving ones.

    With momentum 0.1 the statistics of the last few batches count most, and in M2SNet, whose two shared batch norms
    are called twenty times a pass, those of the last few units. First the shared norms are measured, over all their
    calls; then all others, with the shared ones already fixed as they will be in evaluation: measured beside shared
    norms that still follow each call, they would not fit what they are given later. The released program does not do
    this; it costs two forward passes for each batch.

    Args:
        graph, params, batch_stats: of a model in training mode.
        batches: list of images `[B, S, S, 3]`, normalised as in training.
    """
    model = nnx.merge(graph, params, batch_stats, copy=True)
    filters = list(model.pyramid.filters)
    shared = [full_one.norm for full_one in filters]
    others = [norm for _, norm in nnx.iter_graph(model) if isinstance(norm, BatchNorm) and norm not in shared]
    if shared:
        _measure(model, shared, batches, calls=2 * len(TRIANGLE))
    for full_one in filters:
        full_one.eval()
    _measure(model, others, batches, calls=1)
    return nnx.state(model, nnx.BatchStat)


def _measure(model, norms, batches, calls):
    """Puts into `norms` the means of the statistics of all their calls over `batches`; leaves the others alone."""
    kept = nnx.state(model, nnx.BatchStat)
    for norm in norms:
        norm.momentum = (1, 1 / (calls * len(batches)))  # a sum, of which each call is its share
        norm.mean[...], norm.var[...] = jnp.zeros_like(norm.mean[...]), jnp.zeros_like(norm.var[...])
    graph, params, batch_stats = nnx.split(model, nnx.Param, nnx.BatchStat)

    @jax.jit
    def add(params, batch_stats, images):
        model = nnx.merge(graph, params, batch_stats, copy=True)
        model(images)
        return nnx.state(model, nnx.BatchStat)

    for images in batches:
        batch_stats = add(params, batch_stats, images)
    nnx.update(model, batch_stats)
    measured = [(norm, norm.mean[...], norm.var[...]) for norm in norms]
    nnx.update(model, kept)
    for norm, mean, var in measured:
        norm.mean[...], norm.var[...] = mean, var
