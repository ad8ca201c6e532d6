"""A model as its graph and its weights: a compiled step takes the weights as an argument and is made for the graph."""

from typing import Any

from flax import nnx, struct


class ModelWeights(struct.PyTreeNode):
    """The arrays of a model: its `nnx.Param` and its `nnx.BatchStat` (the running statistics)."""

    params: Any
    batch_stats: Any


def split_model(model: nnx.Module) -> tuple[nnx.GraphDef, ModelWeights]:
    """Returns the structure of a model, which is hashable, and its arrays."""
    graph, params, batch_stats = nnx.split(model, nnx.Param, nnx.BatchStat)
    return graph, ModelWeights(params, batch_stats)


def merge_model(graph: nnx.GraphDef, weights: ModelWeights, *, train: bool = False) -> Any:
    """Returns the model of a graph and its weights, in evaluation mode, or with `train` in training mode."""
    model = nnx.merge(graph, weights.params, weights.batch_stats, copy=True)
    model.train() if train else model.eval()
    return model


def batch_stats_of(model: nnx.Module) -> nnx.State:
    """Returns the running statistics of a model."""
    return nnx.state(model, nnx.BatchStat)
