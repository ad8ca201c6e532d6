"""Seconds until a run is under way: compiling its steps in one thread and in two, and its first step."""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental.compilation_cache import compilation_cache

from m2snet_jax.data.datasets import open_dataset
from m2snet_jax.devices.mesh import Mesh
from m2snet_jax.devices.programs import CACHE, CompiledAhead
from m2snet_jax.errors import InputError
from m2snet_jax.storage import read_json_lines
from m2snet_jax.training.compiled_steps import run_length, sizes_in_order
from m2snet_jax.training.step import lower_train_step

THREADS = (1, 2, 2, 1)  # in turns
NAMES = ('--config', '--root')  # beginnings of the arguments that `train` takes too
LIMIT = 3600  # seconds after which a run without a first step fails


def time_start(config: Any, mesh: Mesh, arguments: list[str]) -> dict[str, Any]:
    """Times what happens before the first step of a run.

    Args:
        arguments: of the command `benchmark`; those that name the config and its keys are given to `train`.

    Returns:
        {'sizes', 'compile': {threads: seconds of each turn}, 'ratio': two threads ÷ one, 'first_step': {'cold', 'warm':
        seconds from the command to the loss of step 1, without compiled programs and with them}}.

    Raises:
        InputError: the data cannot be used, or a run failed.
    """
    total, epoch_steps = run_length(len(open_dataset(config).train), config)
    sizes = sizes_in_order(config, 0, total)
    seconds: dict[int, list[float]] = {1: [], 2: []}
    with _no_cache():
        lower_train_step(config, mesh, total, epoch_steps)(sizes[0])  # the first call also imports
        for threads in THREADS:
            begun = time.perf_counter()
            CompiledAhead(lower_train_step(config, mesh, total, epoch_steps), sizes, threads=threads).wait()
            seconds[threads].append(time.perf_counter() - begun)
    ratio = float(np.mean(seconds[2]) / np.mean(seconds[1]))
    pairs = zip(['', *arguments], arguments, strict=False)
    words = [word for before, word in pairs if word.startswith(NAMES) or before in NAMES]
    with tempfile.TemporaryDirectory() as folder:
        first = {name: _first_step(words, Path(folder), name) for name in ('cold', 'warm')}
    return {'sizes': sizes, 'compile': seconds, 'ratio': ratio, 'first_step': first}


@contextlib.contextmanager
def _no_cache():
    """Compiles everything inside, even programs that the persistent cache holds."""
    before = jax.config.values['jax_enable_compilation_cache']
    try:
        jax.config.update('jax_enable_compilation_cache', False)
        compilation_cache.reset_cache()
        yield
    finally:
        jax.config.update('jax_enable_compilation_cache', before)
        compilation_cache.reset_cache()


def _first_step(words: list[str], folder: Path, name: str) -> float:
    """Runs `train` until the first loss is logged; returns the seconds."""
    run = folder / name
    command = [sys.executable, '-m', 'm2snet_jax', 'train', *words, f'--workdir={run}', '--config.log.every=1']
    with tempfile.TemporaryFile('w+') as errors:
        begun = time.perf_counter()
        process = subprocess.Popen(command, env={**os.environ, CACHE: str(folder / 'cache')}, stderr=errors)
        try:
            while not read_json_lines(run / 'metrics.jsonl'):
                if process.poll() is not None or time.perf_counter() - begun > LIMIT:
                    errors.seek(0)
                    last = (errors.read().splitlines() or ['no message'])[-1]
                    raise InputError(f'no first step: {last.removeprefix("error: ")}')
                time.sleep(0.02)
            return time.perf_counter() - begun
        finally:
            process.kill()
            process.wait()
