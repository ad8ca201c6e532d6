"""Seconds of one training or prediction step on this machine, and the speed of a matrix product to compare with."""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from m2snet_jax.build import build_lossnet, build_model
from m2snet_jax.devices.memory import keep_freed_memory
from m2snet_jax.devices.mesh import Mesh, replicate, shard
from m2snet_jax.models.folding import fold_batch_norms
from m2snet_jax.models.model_weights import split_model
from m2snet_jax.prediction.ensemble import make_predict_step
from m2snet_jax.training.optimizer import build_optimizer
from m2snet_jax.training.step import arrange_for, build_train_step, create_train_state

PRODUCT = 2048


def product_gflops() -> float:
    """Returns GFLOP/s of a 2048³ float32 matrix product on the first device."""
    matrix = jnp.ones((PRODUCT, PRODUCT), jnp.float32)
    compiled = jax.jit(lambda a: a @ a).lower(matrix).compile()
    return 2 * PRODUCT**3 / _time(lambda: compiled(matrix), 10)['p50'] / 1e9


def time_step(kind: str, config: Any, mesh: Mesh, repeats: int) -> dict[str, Any]:
    """Times an 'inference' or 'training' step: seconds, images/s, and the compiler's counts."""
    shape = (config.batch // jax.process_count(), config.data.size, config.data.size)
    generator = np.random.default_rng(0)
    image = generator.standard_normal((*shape, 3), np.float32)
    mask = generator.integers(0, 2, (*shape, config.data.classes)).astype(np.float32)
    batch = shard({'image': image, 'mask': mask}, mesh)
    step, arguments = (prediction if kind == 'inference' else _training)(config, mesh, batch)
    begun = time.perf_counter()
    compiled = step.lower(*arguments).compile()
    seconds = time.perf_counter() - begun

    def once():
        nonlocal arguments
        outputs = compiled(*arguments)
        if kind == 'training':  # the state was donated: the next step takes the new one
            arguments = (outputs[0], *arguments[1:])
        return jax.tree.leaves(outputs)

    times = _time(once, repeats)
    memory: Any = compiled.memory_analysis()
    if kind == 'training':
        flops = _flops(compiled)
    else:  # of one image, since a CPU's program may hold a loop over them
        flops = config.batch // mesh.size * _flops(step.lower(arguments[0], image[:1]))
    return {
        'batch': config.batch,
        'size': config.data.size,
        'compile': seconds,
        **times,
        'images_per_second': config.batch / times['p50'],
        'gflop': flops / 1e9,
        'temporary_mib': memory.temp_size_in_bytes / 2**20,
        'argument_mib': memory.argument_size_in_bytes / 2**20,
    }


def _flops(program):
    """The arithmetic of a lowered or compiled program; NaN where jax does not report it."""
    return (program.cost_analysis() or {}).get('flops', float('nan'))


def prediction(config: Any, mesh: Mesh, batch: dict[str, Any]) -> tuple[Any, tuple]:
    """Returns the prediction step of a config, and its arguments for a batch."""
    keep_freed_memory()  # as every command that predicts does
    graph, weights = split_model(fold_batch_norms(build_model(config)))
    return make_predict_step(graph), (replicate(weights, mesh), batch['image'])


def _training(config, mesh, batch):
    optimizer = build_optimizer(config, total=100, epoch_steps=1)
    graph, state = create_train_state(build_model(config), optimizer, ema=config.ema is not None, mesh=mesh)
    lossnet_graph, lossnet_params = None, None
    if (lossnet := build_lossnet(config)) is not None:
        arrange_for(mesh, lossnet)
        lossnet_graph, lossnet_params = nnx.split(lossnet)
    step = build_train_step(config, 100, graph, optimizer, lossnet_graph)
    return step, (*replicate((state, lossnet_params), mesh), batch)


def _time(once, repeats):
    """Runs `once` twice to warm up and `repeats` times timed, waiting for its result each time."""
    seconds = []
    for index in range(repeats + 2):
        begun = time.perf_counter()
        jax.block_until_ready(once())
        if index >= 2:
            seconds.append(time.perf_counter() - begun)
    return {'p50': float(np.median(seconds)), 'p95': float(np.percentile(seconds, 95)), 'best': min(seconds)}
