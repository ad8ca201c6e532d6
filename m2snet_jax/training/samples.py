"""Predicted maps of a few images at some steps of a run, as panels in its logs."""

import math
from typing import Any

from m2snet_jax.data.datasets import Dataset
from m2snet_jax.devices.mesh import Mesh
from m2snet_jax.evaluation.test_sets import sample_panels
from m2snet_jax.training.logs import Logs

TIMES = 10  # in a run: more would fill the event file, at 352 pixels about a megabyte each time


class Samples:
    """Logs the first `log.images` validation images, or training images where none are held out.

    The test sets are not used: they are predicted once, at the end. `total` is the number of steps of the run.
    """

    def __init__(self, dataset: Dataset, config: Any, mesh: Mesh, logs: Logs, total: int):
        self._split = 'train' if dataset.validation is None else 'validation'
        self._source = getattr(dataset, self._split)
        self._config, self._mesh, self._logs = config, mesh, logs
        wanted = config.log.images and (config.log.tensorboard or config.log.wandb)
        self._steps = {math.ceil(total * k / TIMES) for k in range(1, TIMES)} if wanted else ()

    def are_due(self, step: int) -> bool:
        """Whether panels are written after this step; the same in every process."""
        return step in self._steps

    def write(self, step: int, predict: Any) -> None:
        """Predicts probabilities by `predict`, a function of normalised images, and writes the panels."""
        for name, panels in sample_panels(predict, self._source, self._config, self._mesh).items():
            self._logs.write_image(step, f'{self._split}/{name}', panels)
