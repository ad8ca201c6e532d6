"""Compiles every step of a config for a machine and searches the largest batch that fits, for compile-check."""

import dataclasses
import sys
from typing import Any

from m2snet_jax.devices.mesh import Mesh
from m2snet_jax.planning.chips import Chip
from m2snet_jax.planning.compilation import compile_step, count_flops, largest_batch, lower_step
from m2snet_jax.planning.scaling import SHAPES, scaling

QUICK = 'O0'  # level of optimisation at which the search compiles


def check(
    config: Any, topology: str, chip: Chip, mesh: Mesh, batch: int, sizes: list[int], search: bool
) -> dict[str, Any]:
    """Compiles every step and returns the report: plain values, as --json prints them.

    Args:
        topology, chip, mesh: a name and what `open_topology` returns for it.
        batch: images over all chips.
        sizes: training sides in pixels; prediction runs at `data.size`.
        search: whether to search the largest training batch, at the largest side.
    """
    memory, chips = chip.memory * chip.usable, mesh.size

    def figures(kind, images, size, level=None):
        about = f'{kind}, {images} × {size}² on {topology}' + (f', {level}' if level else '')
        _say(f'{about}: lowering')
        lowered = lower_step(kind, config, mesh, images, size)
        return compile_step(lowered, memory, topology, lambda words: _say(f'{about}: {words}'), level, chip.platform)

    predicted = -(-config.evaluate.batch // chips) * chips  # as `evaluate` fills it up
    wanted = [('training', batch, size) for size in sizes] + [('prediction', predicted, config.data.size)]
    steps = []
    for kind, images, size in wanted:
        found = dataclasses.asdict(figures(kind, images, size))
        if found['flops'] is None:
            found['flops'] = count_flops(kind, config, images // chips, size)
        steps.append({'kind': kind, 'size': size, 'batch': images, 'images_a_chip': images // chips, **found})
    largest = None
    if search:
        parts = config.gradient_accumulation

        def needed(images, level=None):
            found = figures('training', images * parts * chips, max(sizes), level)
            return None if found.refusal else found.needed

        def estimate(images):
            quick = needed(images, QUICK)
            return quick and quick * share

        def fits(images):
            full = needed(images)
            return full is not None and full <= memory

        start = batch // chips // parts
        full, quick = needed(start), needed(start, QUICK)
        share = full / quick if full and quick else 1
        low, high = largest_batch(estimate, fits, memory, start)
        most, refused = low * parts, high and high * parts
        largest = {'size': max(sizes), 'images_a_chip': most, 'batch': most * chips, 'refused': refused}
    training = max((step for step in steps if step['kind'] == 'training'), key=lambda step: step['size'])
    models = []
    if chip.axes and training['estimated_cycles']:
        found = training['estimated_cycles'] / chip.clock, training['collectives']
        models = [scaling(chip, *found, chips, shape) for shape in SHAPES[chip.axes]]
    return {
        'topology': topology,
        'chips': chips,
        'memory': chip.memory,
        'usable': memory,
        'peak': chip.peak,
        'clock': chip.clock,
        'model': config.model.name,
        'encoder': config.model.encoder,
        'dtype': config.dtype,
        'remat': config.remat,
        'lossnet': config.loss.lossnet,
        'config_batch': config.batch,
        'steps': steps,
        'largest': largest,
        'scaling': models,
    }


def _say(words):
    print(words, file=sys.stderr, flush=True)
