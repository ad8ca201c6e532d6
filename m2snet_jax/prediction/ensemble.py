"""The networks of a Predictor: one model after the other over a batch, each over the flips."""

import functools
import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from m2snet_jax.devices.mesh import Mesh, own_rows, replicate, shard
from m2snet_jax.devices.programs import compiler_options, one_by_one
from m2snet_jax.models.model_weights import merge_model, split_model
from m2snet_jax.prediction.members import FLIPS, Member
from m2snet_jax.weights.names import model_hash

Batch = Float[np.ndarray, 'batch size size channels']


class Ensemble:
    """One model or several, whose batch norms are folded into the convolutions.

    It may be called from several threads at once.

    Attributes:
        members: the models.
        sizes: sides in pixels at which they run, each once, ascending.
        steps: of each model, its `make_predict_step` and its weights.
        programs: what has been compiled, by step and shape of the batch.
    """

    def __init__(self, members: Sequence[Member]):
        self.members, self.steps, self.programs = list(members), [], {}
        self.sizes = sorted({member.size for member in members})
        for member in members:
            graph, weights = split_model(member.folded())
            self.steps.append((make_predict_step(graph), weights))
        self._lock = threading.Lock()

    @functools.cached_property
    def model_hash(self) -> str:
        """SHA-256 of the weights (see `weights.names.model_hash`); of several models that of their hashes, sorted."""
        hashes = sorted(model_hash(member.model) for member in self.members)
        return hashes[0] if len(hashes) == 1 else hashlib.sha256('\n'.join(hashes).encode()).hexdigest()

    def run(self, number: int, batch: Batch) -> Batch:
        """Returns the probabilities of a batch by the model `number`.

        Models of one structure share a program; other threads wait while it is compiled.
        """
        step, weights = self.steps[number]
        with self._lock:
            if (step, batch.shape) not in self.programs:
                self.programs[step, batch.shape] = step.lower(weights, batch).compile()
            program = self.programs[step, batch.shape]
        return np.asarray(program(weights, batch))

    def over(self, mesh: Mesh) -> Callable[[int, Batch], Batch]:
        """Returns `run` for this process's share of a batch that is split over a mesh."""
        placed = [replicate(weights, mesh) for _, weights in self.steps]

        def run(number, batch):
            return own_rows(self.steps[number][0](placed[number], shard(np.ascontiguousarray(batch), mesh)))

        return run

    def passes(self, batches: Mapping[int, Batch], flips: bool, run: Callable[[int, Batch], Batch]) -> list[Batch]:
        """Returns the probabilities of a batch from each model and flip, flipped back; one model computes at a time.

        Args:
            batches: the normalised images by size.
            flips: whether the batch is also flipped.
            run: the method `run`, or what `over` returns.
        """
        return [
            np.flip(run(number, np.flip(batches[member.size], axes)), axes)
            for number, member in enumerate(self.members)
            for axes in (FLIPS if flips else FLIPS[:1])
        ]


@functools.cache
def make_predict_step(graph: Any) -> Any:
    """Returns the jitted `predict_step(weights, images)`, in evaluation mode; equal graphs share one, compiled once.

    Images `[B, S, S, 3]`, normalised for the test path, give probabilities `[B, S, S, C]`, at least float32.
    """

    def predict_step(weights, images):
        return one_by_one(lambda images: jax.nn.sigmoid(merge_model(graph, weights)(images)), images)

    return jax.jit(predict_step, compiler_options=compiler_options())
