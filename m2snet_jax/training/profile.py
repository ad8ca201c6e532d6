"""Traces of training steps for TensorBoard and Perfetto, by jax's profiler."""

from pathlib import Path
from typing import Any

import jax

from m2snet_jax.devices import processes
from m2snet_jax.errors import InputError
from m2snet_jax.training.logs import log


class Profile:
    """Traces some steps of a run into `plugins/profile/` of its folder; of several processes the first one does.

    As a context it also ends a trace that an error or the end of the run has cut short.

    Args:
        steps: numbers of the steps, all of them within the run.
        workdir: folder of the run.
        first: number of the step before the first one that is made now; earlier steps cannot be traced.
    """

    def __init__(self, steps: range, workdir: Path, first: int):
        if steps and steps[-1] <= first:
            log(f'nothing is profiled: steps {steps[0]} to {steps[-1]} were made before')
        self._steps = range(max(steps.start, first + 1), steps.stop) if processes.is_primary() else range(0)
        self._workdir, self._tracing = workdir, False

    def __enter__(self) -> 'Profile':
        return self

    def __exit__(self, *error: Any) -> None:
        if self._tracing:
            self._stop()

    def begin(self, step: int, state: Any) -> None:
        """Starts the trace before its first step; `state` is what the step before returned."""
        if not self._steps or step != self._steps[0]:
            return
        jax.block_until_ready(state)  # steps still running are not part of the trace
        options = jax.profiler.ProfileOptions()
        options.python_tracer_level = 0  # calls of Python functions would make most of the file
        jax.profiler.start_trace(self._workdir, profiler_options=options)
        self._tracing = True

    def end(self, step: int, losses: Any) -> None:
        """Ends the trace after its last step; `losses` is what the step returned."""
        if self._tracing and step == self._steps[-1]:
            jax.block_until_ready(losses)
            self._stop()

    def _stop(self):
        self._tracing = False
        jax.profiler.stop_trace()
        log(f'the trace of steps {self._steps[0]} to {self._steps[-1]} is in {self._workdir / "plugins" / "profile"}')


def check_profile(steps: range, total: int) -> None:
    """Raises InputError if the steps to trace are not all within a run of `total` steps."""
    if steps and steps[-1] > total:
        raise InputError(f'--config.log.profile={steps[0]}:{steps[-1]}: the run has {total} steps; name some of them')
