"""A few images that are predicted now and then while a model trains, so that one sees the maps take shape."""

import math

from m2snet_jax.evaluation import sample_panels

TIMES = 10  # in a run: more would fill the event file, at 352 pixels about a megabyte each time


class Samples:
    """Shows the first `log.images` validation images, or where none are held out training images.

    The test sets are left alone: they are looked at once, at the end.

    Args:
        dataset, config, mesh: the run's.
        logs: where the pictures go.
        total: steps of the run.
    """

    def __init__(self, dataset, config, mesh, logs, total):
        self._split = 'train' if dataset.validation is None else 'validation'
        self._source = getattr(dataset, self._split)
        self._config, self._mesh, self._logs = config, mesh, logs
        wanted = config.log.images and (config.log.tensorboard or config.log.wandb)
        self._steps = {math.ceil(total * k / TIMES) for k in range(1, TIMES)} if wanted else ()

    def are_due(self, step):
        """Whether it is one of the steps after which they are shown; every process answers the same."""
        return step in self._steps

    def write(self, step, predict):
        """Predicts them by `predict`, images `[B, S, S, 3]` → probabilities `[B, S, S, C]`, and writes the pictures."""
        for name, panels in sample_panels(predict, self._source, self._config, self._mesh).items():
            self._logs.write_image(step, f'{self._split}/{name}', panels)
