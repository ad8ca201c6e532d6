"""Training steps compiled ahead: in the right order, equal to those of the loop, and kept by `--compile-only`."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from compilation_cache import CACHE
from flax import nnx

from m2snet_jax import InputError, load_config
from m2snet_jax.build import build_lossnet, build_model
from m2snet_jax.data.pipeline import image_size
from m2snet_jax.devices.mesh import make_mesh, replicate, shard
from m2snet_jax.training import compiled_steps
from m2snet_jax.training.compiled_steps import CompiledSteps, run_length, sizes_in_order
from m2snet_jax.training.optimizer import build_optimizer
from m2snet_jax.training.step import build_train_step, create_train_state

pytestmark = pytest.mark.usefixtures('compiled_quickly', 'plain_encoder')

ROOT = Path(__file__).parents[2]
TINY = {
    'batch': 4,
    'steps': 3,
    'model.columns': 1,
    'loss.lossnet_size': 32,
    'data.size': 48,
    'data.sizes': (40, 48),
    'data.count': 10,
    'data.test_count': 3,
    'log.every': 1,
    'log.images': 1,
    'evaluate.batch': 2,
    'evaluate.bootstrap': 0,
}
ARGUMENTS = ['--config=quickstart', *(f'--config.{key}={value}' for key, value in TINY.items())]


def test_sizes_are_in_the_order_of_the_steps_that_are_left():
    config = load_config('default', **{'data.sizes': (64, 80, 96, 112)})
    drawn = [image_size(config, step) for step in range(400)]
    assert sorted(set(drawn)) == [64, 80, 96, 112]
    for first, total in ((0, 400), (7, 400), (0, 2), (5, 6), (9, 9)):
        expected = sorted(set(drawn[first:total]), key=drawn[first:total].index)
        assert sizes_in_order(config, first, total) == expected


def test_a_run_has_as_many_steps_as_its_epochs_unless_steps_is_set():
    assert run_length(17, load_config('default', batch=4, epochs=3)) == (15, 5)
    assert run_length(17, load_config('default', batch=4, steps=7)) == (7, 5)


@pytest.mark.parametrize(
    'changes', [{'loss.lossnet': 0.0}, pytest.param({'ema': 0.9, 'gradient_accumulation': 2}, marks=pytest.mark.slow)]
)
def test_a_step_from_shapes_is_the_step_of_the_arrays(changes):
    """Bit for bit, and nothing is compiled where it is called."""
    config = load_config('quickstart', **{**TINY, 'data.sizes': (48,), 'model.encoder': 'plain', **changes})
    mesh, count = make_mesh(1), 10
    lengths = run_length(count, config)
    optimizer = build_optimizer(config, *lengths)
    graph, state = create_train_state(build_model(config), optimizer, ema=config.ema is not None, mesh=mesh)
    lossnet = build_lossnet(config)
    lossnet_graph, lossnet_params = (None, None) if lossnet is None else nnx.split(lossnet)
    usual = build_train_step(config, lengths[0], graph, optimizer, lossnet_graph)
    states = [replicate(jax.tree.map(jax.numpy.copy, state), mesh) for _ in range(2)]
    lossnet_params = replicate(lossnet_params, mesh)
    generator = np.random.default_rng(0)
    image = generator.standard_normal((4, 48, 48, 3), np.float32)
    batch = shard({'image': image, 'mask': generator.integers(0, 2, (4, 48, 48, 1)).astype(np.float32)}, mesh)
    with CompiledSteps() as steps:
        steps.start(config, mesh, None, count)
        steps.wait()
        for size in (48, 48):
            compiled = []
            jax.monitoring.register_event_duration_secs_listener(
                lambda name, seconds, compiled=compiled, **details: compiled.append(name)
            )
            states[0], losses = steps(size)(states[0], lossnet_params, batch)
            jax.monitoring.clear_event_listeners()
            assert [name for name in compiled if 'compile' in name or 'trace' in name] == []
            states[1], expected = usual(states[1], lossnet_params, batch, size)
            jax.tree.map(np.testing.assert_array_equal, losses, expected)
    jax.tree.map(np.testing.assert_array_equal, *states)


class Refused:
    """A lowered program that the compiler does not compile."""

    def __init__(self, error):
        self.error = error

    def compile(self):
        raise self.error


def steps_refused_with(error, monkeypatch):
    monkeypatch.setattr(compiled_steps, 'lower_train_step', lambda *arguments: lambda size: Refused(error))
    steps = CompiledSteps(threads=1)
    steps.start(load_config('quickstart', **{**TINY, 'data.sizes': (48,)}), make_mesh(1), None, 10)
    return steps


def test_a_step_that_does_not_fit_is_one_line_that_says_what_helps(monkeypatch):
    full = jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Used 20G of 16G hbm.\n\nLargest program allocations')
    with pytest.raises(InputError) as caught:
        steps_refused_with(full, monkeypatch)(48)
    assert str(caught.value) == (
        'the training step for 48×48 pixels cannot be compiled (RESOURCE_EXHAUSTED: Used 20G of 16G hbm.; '
        '--config.remat=True, --config.gradient_accumulation=2 or a smaller --config.batch need less memory)'
    )
    with pytest.raises(InputError, match=r'48×48 pixels cannot be compiled \(INTERNAL: a fault\)$'):
        steps_refused_with(jax.errors.JaxRuntimeError('INTERNAL: a fault'), monkeypatch).wait()


def test_a_fault_of_a_program_in_a_thread_is_raised_as_it_is(monkeypatch):
    with pytest.raises(TypeError, match='a fault'):
        steps_refused_with(TypeError('a fault'), monkeypatch)(48)


def start(folder, *words, cache=CACHE):
    environment = {
        **os.environ,
        'JAX_PLATFORMS': 'cpu',
        'JAX_COMPILATION_CACHE_DIR': os.path.abspath(cache),
        'TFDS_DATA_DIR': str(folder / 'tfds'),
    }
    return subprocess.Popen(
        [sys.executable, 'train.py', *ARGUMENTS, *words],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize('number', [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_signal_ends_a_run_whose_steps_are_being_compiled(number, tmp_path):
    process = start(tmp_path, f'--workdir={tmp_path / "run"}', cache=tmp_path / 'cache')
    lines = []
    while not any(line.startswith('compiling') for line in lines):
        assert process.poll() is None, lines
        lines.append(process.stderr.readline())
    time.sleep(2)  # the compiler is at work then, or the initial weights are made
    process.send_signal(number)
    begun = time.monotonic()
    _, errors = process.communicate(timeout=60)
    assert time.monotonic() - begun < 30
    assert process.returncode in (128 + number, -number)
    assert 'Fatal' not in errors
    assert not (tmp_path / 'run' / 'scores').exists()


@pytest.mark.slow
def test_compile_only_leaves_nothing_to_compile_for_the_run(tmp_path):
    """Not the few operations on single arrays that orbax and the logs compile, each in milliseconds."""
    cache = tmp_path / 'cache'

    def large():
        paths = [path for path in cache.iterdir() if path.stat().st_size > 50_000]
        return {path.name.rpartition('-')[0]: path.stat().st_mtime_ns for path in paths}

    words = ['--config.data.validation=2', '--config.steps=5']  # step 5 is the first with 40 pixels
    process = start(tmp_path, '--compile-only', *words, cache=cache)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    assert sorted(tmp_path.iterdir()) == [cache]  # no prepared data, no run
    for size in (40, 48):
        assert re.search(rf'^compiled the training step for {size}×{size} pixels in ', errors, re.MULTILINE)
    before = large()
    assert {name.partition('-')[0] for name in before} >= {'jit_train_step', 'jit_predict_step', 'jit_dice_sums'}
    process = start(tmp_path, *words, f'--workdir={tmp_path / "run"}', cache=cache)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    assert large() == before
