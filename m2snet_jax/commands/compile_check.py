"""Compiles a config's steps for a machine that is not here, and says whether they fit and how they would scale.

python -m m2snet_jax compile-check --config=NAME --topology=v5e:4x4 [--batch=N] [--sizes=S,…] [--nosearch] [--json]

The training step with LossNet, and the prediction step, as `train` runs them: sharded over every chip of the topology,
the state replicated, the old state's memory reused. Nothing is allocated and no accelerator is needed, but each step
takes the compiler minutes; its figures are kept in ~/.cache/m2snet_jax/compile-check and the next call is quick. The
largest batch that fits is searched for unless --nosearch is given: a few compilations with little optimisation, which
need nearly the memory of full ones in a fraction of their time, and a full one of what was found.

Topologies: v4, v5e, v5p, v6e (pip install "libtpu==0.0.42.*"), as v5e:2x2 … v5e:16x16, v4:4x4x4, v6e:4x4; and cards,
as h100:1x1x4 for one machine with four (pip install jax-cuda12-plugin==0.10.2 jax-cuda12-pjrt==0.10.2).

--batch counts the images over all chips. Without it the config's batch is taken, or, where the chips cannot share it
evenly, that many images on each chip. Status 1: a step does not fit.
"""

import dataclasses
import json
import sys

from absl import flags

from m2snet_jax.commands import config_name, parse, run
from m2snet_jax.config import MINIMUM_SIZE, check_config
from m2snet_jax.errors import InputError

QUICK = 'O0'  # level of optimisation at which the search compiles


def main(argv):
    """Runs the command; returns its exit status: 0 everything fits, 1 something does not, 2 could not start."""
    return run(_main, argv)


def _main(argv):
    def define(values):
        flags.DEFINE_string('topology', None, 'chips to compile for, as v5e:4x4', flag_values=values)
        flags.DEFINE_integer('batch', None, 'images over all chips', 1, flag_values=values)
        flags.DEFINE_list('sizes', None, 'training sides in pixels; by default the largest', flag_values=values)
        flags.DEFINE_bool('search', True, 'search the largest training batch that fits', flag_values=values)
        flags.DEFINE_bool('json', False, 'print JSON', flag_values=values)

    config, values, words = parse(argv, __doc__, define)
    if words:
        raise InputError(f'{words[0]}: not understood; flags start with --')
    if values.topology is None:
        raise InputError('--topology is missing: give one like v5e:4x4')
    check_config(config)
    sizes = _sizes(values.sizes, config)

    from m2snet_jax.training.chips import open_topology

    chip, mesh = open_topology(values.topology)
    batch = global_batch(values.batch, config, mesh.size)
    report = check(config, values.topology, chip, mesh, batch, sizes, values.search)
    report = {'config': config_name(argv), **report}
    print(json.dumps(report) if values.json else _text(report))
    return 0 if all(step['fits'] for step in report['steps']) else 1


def _sizes(words, config):
    """The training sides to compile."""
    if words is None:
        return [max(config.data.sizes)]
    if not words or not all(word.isdigit() and int(word) >= MINIMUM_SIZE for word in words):
        raise InputError(f'--sizes={",".join(words)}: give sides of at least {MINIMUM_SIZE} pixels, as 224,352')
    return [int(word) for word in words]


def global_batch(batch, config, chips):
    """Returns the images over all chips; raises InputError where they cannot share a batch that was asked for."""
    if batch is None and config.batch % (chips * config.accumulate):
        batch = config.batch * chips
    batch = config.batch if batch is None else batch
    if batch % (chips * config.accumulate):
        parts = f' times the {config.accumulate} parts (accumulate)' if config.accumulate > 1 else ''
        near = max(round(batch / (chips * config.accumulate)), 1) * chips * config.accumulate
        raise InputError(f'--batch={batch}: must be divisible by the {chips} chips{parts}, as {near}')
    return batch


def check(config, topology, chip, mesh, batch, sizes, search):
    """Compiles every step and returns the report: plain values, as --json prints them.

    Args:
        config: as `load_config` returns it.
        topology, chip, mesh: a name and what `open_topology` returns for it.
        batch: images over all chips.
        sizes: training sides in pixels; prediction runs at `data.size`.
        search: whether to search the largest training batch, at the largest side.
    """
    from m2snet_jax.training.compilation import compile_step, count_flops, largest_batch, lower_step
    from m2snet_jax.training.scaling import SHAPES, scaling

    memory, chips = chip.memory * chip.usable, mesh.size

    def figures(kind, images, size, level=None):
        about = f'{kind}, {images} × {size}² on {topology}' + (f', {level}' if level else '')
        _say(f'{about}: lowering')
        lowered = lower_step(kind, config, mesh, images, size)
        return compile_step(lowered, memory, topology, lambda words: _say(f'{about}: {words}'), level)

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
        parts = config.accumulate

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
    if chip.axes and training['flops']:
        found = training['flops'], training['accessed'], training['collectives']
        models = [scaling(chip, *found, chips, shape) for shape in SHAPES[chip.axes]]
    return {
        'topology': topology,
        'chips': chips,
        'memory': chip.memory,
        'usable': memory,
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


def _text(report):
    """Returns the report in words."""
    chips = report['chips']
    lines = [
        f'{report["config"]}: {report["model"]}, {report["encoder"]}, {report["dtype"]}, LossNet weight '
        f'{report["lossnet"]}, remat {"on" if report["remat"] else "off"}',
        f'{report["topology"]}: {chips} chips of {_gib(report["memory"])}, of which a program may fill '
        f'{_gib(report["usable"])}; figures are the compiler’s, for one chip',
    ]
    for step in report['steps']:
        lines += ['', f'{step["kind"]}, {step["size"]}², {step["images_a_chip"]} images a chip, {step["batch"]} in all']
        lines += _step_lines(step, report['usable'])
    trained = report['steps'][0]['batch']
    if trained != report['config_batch']:
        lines += ['', f'train with --config.batch={trained}: the config says {report["config_batch"]}']
    if largest := report['largest']:
        edge = f'{largest["refused"]} would not' if largest['refused'] else 'more was not tried'
        lines += [
            '',
            f'largest training batch at {largest["size"]}²: {largest["images_a_chip"]} images a chip fit '
            f'({largest["batch"]} in all), {edge}',
        ]
    if report['scaling']:
        from m2snet_jax.training.scaling import HOP, SHARE

        lines += [
            '',
            f'model of scaling, {report["steps"][0]["images_a_chip"]} images a chip, published speeds, '
            f'{HOP * 1e6:g} µs a hop, nothing overlaps:',
            f'ms of arithmetic at {SHARE:.0%} of peak, and of memory, on a chip; of transfer and hops between chips;',
            'the efficiency lies between that of the shorter guess at a chip’s work and that of the longer one',
            '  chips  arithmetic  memory  transfer   hops  efficiency',
        ]
        lines += [
            f'  {one["chips"]:5}  {one["arithmetic"] * 1e3:10.1f}  {one["memory"] * 1e3:6.1f}  '
            f'{one["transfer"] * 1e3:8.2f}  {one["hops"] * 1e3:5.2f}  {one["low"]:.1%} … {one["high"]:.1%}'
            for one in report['scaling']
        ]
    return '\n'.join(lines)


def _step_lines(step, usable):
    """The figures of one step, a line each."""
    if step['refusal']:
        return [f'  DOES NOT FIT: {step["refusal"]}']
    lines = [
        f'  arguments {_gib(step["arguments"])}, temporaries {_gib(step["temporaries"])}, '
        f'program {_gib(step["program"])}; peak {_gib(step["peak"])}',
        f'  {"fits" if step["fits"] else "DOES NOT FIT"}: needs {_gib(step["needed"])} of {_gib(usable)} '
        f'({step["needed"] / usable:.0%})',
    ]
    if step['flops']:
        accessed = f', {step["accessed"] / 1e9:.1f} GB read and written' if step['accessed'] else ''
        lines.append(f'  {step["flops"] / 1e12:.3f} TFLOP{accessed}')
    for kind, found in step['collectives'].items():
        small = sum(size <= 2**16 for size in found['sizes'])
        beside = f', {found["asynchronous"]} run beside something else' if found['asynchronous'] else ''
        lines.append(
            f'  {found["count"]} {kind}, {found["bytes"] / 1e6:.2f} MB; {small} of them are of 64 KiB or less{beside}'
        )
    if not step['collectives']:
        lines.append('  no collectives')
    return [*lines, f'  compiled in {step["seconds"]:.0f} s']


def _gib(size):
    return f'{size / 2**30:.2f} GiB'
