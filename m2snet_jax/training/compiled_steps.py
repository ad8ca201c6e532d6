"""The training steps of a run, compiled ahead; and all programs of a run, compiled for later starts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.stages import Compiled

from m2snet_jax.build import build_lossnet, build_model, check_config
from m2snet_jax.data.datasets import count_training
from m2snet_jax.data.pipeline import eval_batches, image_size, steps_per_epoch
from m2snet_jax.devices.cache_entries import check_all_kept, check_cache
from m2snet_jax.devices.mesh import Mesh, check_batch, describe, make_mesh, replicate, shard
from m2snet_jax.devices.programs import CompiledAhead
from m2snet_jax.errors import InputError
from m2snet_jax.prediction.ensemble import make_predict_step
from m2snet_jax.prediction.predictor import Predictor
from m2snet_jax.training.logs import duration, log
from m2snet_jax.training.optimizer import build_optimizer
from m2snet_jax.training.precise_batch_norm import precise_batch_stats
from m2snet_jax.training.step import create_train_state, lower_train_step, without_files
from m2snet_jax.training.validation import make_validate
from m2snet_jax.weights.checkpoint import saved_steps


class CompiledSteps:
    """The training steps of a run, one program for each size, compiled in threads: `steps(size)` waits for one.

    As a context, no further program is begun after the block. `threads` is as in `CompiledAhead`.
    """

    def __init__(self, threads: int | None = None):
        self._threads = threads
        self._programs: CompiledAhead[int] | None = None
        self._sizes: list[int] = []

    def __enter__(self) -> 'CompiledSteps':
        return self

    def __exit__(self, *error: Any) -> None:
        if self._programs is not None:
            self._programs.close()

    def start(self, config: Any, mesh: Mesh, workdir: Path | None, count: int) -> None:
        """Begins to compile, in the order in which the next steps need the sizes.

        Args:
            config: of the run; files of weights are not read. Sizes that no step needs any more are left out.
            mesh: of the devices that hold state and batches.
            workdir: folder of the run, whose newest checkpoint says which step is next; None: the first.
            count: training images, which give the length of the run.
        """
        total, epoch_steps = run_length(count, config)
        first = 0 if workdir is None else max(saved_steps(workdir / 'checkpoints'), default=0)
        lower = lower_train_step(config, mesh, total, epoch_steps)
        self._sizes = sizes_in_order(config, first, total)
        self._programs = CompiledAhead(lower, self._sizes, _report, self._threads)

    def __call__(self, size: int, give_up: Callable[[], bool] = lambda: False) -> Compiled | None:
        """Returns the step of a size, as `CompiledAhead` does: it takes state, LossNet's parameters and batch.

        Raises:
            InputError: the compiler refused the step of one of the sizes.
        """
        assert self._programs is not None
        try:
            return self._programs(size, give_up)
        except jax.errors.JaxRuntimeError as error:
            raise InputError(f'{_name(self._programs.failed)} cannot be compiled ({_reason(error)})') from None

    def wait(self) -> None:
        """Waits for all sizes; raises as a call does."""
        for size in self._sizes:
            self(size)


def run_length(count: int, config: Any) -> tuple[int, int]:
    """Returns the steps of a run, and of an epoch, for `count` training images."""
    epoch_steps = steps_per_epoch(range(count), config)
    return config.steps or config.epochs * epoch_steps, epoch_steps


def sizes_in_order(config: Any, first: int, total: int) -> list[int]:
    """Returns the sizes of the steps after step `first` of a run, in the order in which they are first needed."""
    sizes = {}
    for step in range(first, total):
        sizes[image_size(config, step)] = None
        if len(sizes) == len(set(config.data.sizes)):
            break
    return list(sizes)


def _report(size: int, seconds: float | None) -> None:
    log(f'compiling {_name(size)}' if seconds is None else f'compiled {_name(size)} in {duration(seconds)}')


def _name(size):
    return f'the training step for {size}×{size} pixels'


def _reason(error):
    """Returns the first line of a compiler's error, and what to do about too little memory."""
    reason = str(error).partition('\n')[0]
    if reason.startswith('RESOURCE_EXHAUSTED'):
        reason += '; --config.remat=True, --config.gradient_accumulation=2 or a smaller --config.batch need less memory'
    return reason


def compile_programs(config: Any) -> None:
    """Compiles what a run of a config executes, into the persistent cache, and trains nothing.

    The training steps are compiled from shapes; what makes the initial weights, predicts and validates is run once,
    with random weights and a black image. Nothing is written but the cache.

    Raises:
        InputError: the config, the data or the cache cannot be used, or the compiler refused a step.
    """
    check_config(config)
    check_cache()
    mesh = make_mesh()
    check_batch(config.batch, config.gradient_accumulation, mesh)
    log(f'compiling for {describe(mesh)}')
    with CompiledSteps() as steps:
        count = count_training(config)
        steps.start(config, mesh, None, count)
        _run_the_others(without_files(config), mesh, count)
        steps.wait()
    check_all_kept()
    log(f'the compiled programs are in {jax.config.values["jax_compilation_cache_dir"]}')


def _run_the_others(config: Any, mesh: Mesh, count: int) -> None:
    """Runs, once, the programs that make the initial state, and those that predict and validate."""
    graph, state = create_train_state(
        build_model(config), build_optimizer(config, *run_length(count, config)), ema=config.ema is not None, mesh=mesh
    )
    build_lossnet(config)
    size = config.data.size
    black = [{'name': '', 'image': np.zeros((size, size, 3), np.uint8), 'mask': np.zeros((size, size), np.uint8)}]
    ((_, images),) = eval_batches(black, config, mesh.size, jax.process_index(), jax.process_count())
    images, weights = shard(images, mesh), replicate(state.eval_weights, mesh)
    if config.log.images:
        make_predict_step(graph)(weights, images)
    if config.data.validation is not None or config.select == 'test':
        make_validate(graph, [black], config, mesh)(weights)
    if config.precise_batch_norm:
        training_images = np.zeros((config.batch // jax.process_count(), size, size, 3), np.float32)
        precise_batch_stats(graph, weights, [shard(training_images, mesh)])
    with config.unlocked():
        config.dtype, config.remat = 'float32', False  # as the final prediction
    Predictor(build_model(config), size, config).over(mesh)(images)
