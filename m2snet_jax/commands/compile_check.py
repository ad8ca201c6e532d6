"""Compiles the steps of a config for TPUs or GPUs that this computer does not have, and reports the memory they need.

python -m m2snet_jax compile-check --config=NAME --topology=v5e:4x4 [--batch=N] [--sizes=S,…] [--nosearch] [--json]

The training step with LossNet and the prediction step are compiled as `train` runs them, for all chips of the topology.
This takes minutes for each step. The results are kept in ~/.cache/m2snet_jax/compile-check and used again. Unless
--nosearch is given, the command also searches for the largest batch that fits.

Topologies of TPUs: e.g. v5e:2x2, v5e:16x16, v4:4x4x4, v5p:2x2x1, v6e:4x4 (pip install "libtpu==0.0.42.*"). GPUs:
h100:1x1x1 or a100:1x1x1 is one card, h100:1x1x4 four cards of one machine (pip install jax-cuda12-plugin==0.10.2
jax-cuda12-pjrt==0.10.2).

--batch is the number of images over all chips. By default it is the config's batch or, if that is not divisible by the
number of chips, that batch times the number of chips. Exit status 1: a step does not fit into memory.
"""

import json
from typing import Any

from absl import flags

from m2snet_jax.commands import parse, run, run_name
from m2snet_jax.config_values import MINIMUM_SIZE
from m2snet_jax.errors import InputError


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit status: 0 everything fits, 1 something does not, 2 could not start."""
    return run(_main, argv)


def _main(argv):
    def define(values):
        flags.DEFINE_string('topology', None, 'chips to compile for, e.g. v5e:4x4', flag_values=values)
        flags.DEFINE_integer('batch', None, 'images over all chips', 1, flag_values=values)
        flags.DEFINE_list(
            'sizes', None, 'sides of training images; by default the largest of the config', flag_values=values
        )
        flags.DEFINE_bool('search', True, 'search for the largest training batch that fits', flag_values=values)
        flags.DEFINE_bool('json', False, 'print JSON', flag_values=values)

    given = parse(argv, __doc__, define)
    config, values = given.config, given.flags
    if values.topology is None:
        raise InputError('--topology is missing; example: --topology=v5e:4x4')

    sizes = _sizes(values.sizes, config)

    from m2snet_jax.build import check_config
    from m2snet_jax.planning.check import check
    from m2snet_jax.planning.chips import open_topology
    from m2snet_jax.planning.planning_text import text

    check_config(config)
    chip, mesh = open_topology(values.topology)
    batch = global_batch(values.batch, config, mesh.size)
    report = check(config, values.topology, chip, mesh, batch, sizes, values.search)
    report = {'config': run_name(given.config_name), **report}
    print(json.dumps(report) if values.json else text(report))
    return 0 if all(step['fits'] for step in report['steps']) else 1


def _sizes(words, config):
    """The training sides to compile."""
    if words is None:
        return [max(config.data.sizes)]
    if not words or not all(word.isdigit() and int(word) >= MINIMUM_SIZE for word in words):
        raise InputError(f'--sizes={",".join(words)}: give sides of at least {MINIMUM_SIZE} pixels, as 224,352')
    return [int(word) for word in words]


def global_batch(batch: int | None, config: Any, chips: int) -> int:
    """Returns the images over all chips; raises InputError if a batch that was asked for cannot be split evenly."""
    shares = chips * config.gradient_accumulation
    images: int = config.batch * (chips if config.batch % shares else 1) if batch is None else batch
    if images % shares:
        parts = f' times the {shares // chips} parts (gradient_accumulation)' if shares > chips else ''
        near = max(round(images / shares), 1) * shares
        raise InputError(f'--batch={images}: must be divisible by the {chips} chips{parts}, as {near}')
    return images
