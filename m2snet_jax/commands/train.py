"""Trains a model from a config, resuming where the run folder stands, and scores it on the test sets.

python train.py --config=configs/NAME.py[:variant] [--workdir=DIR] [--root=DATA] [--config.key=value …]

On several hosts start the same command on each: they find each other where jax recognises the cluster (TPU pod, SLURM,
Kubernetes, Open MPI), or by the variables JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID. They must see
one and the same --workdir.
"""

import sys

from absl import flags

from m2snet_jax.commands import config_name, parse, run
from m2snet_jax.errors import InputError


def main(argv):
    """Runs the command; returns its exit status: 0 done, 1 the loss is not finite, 2 could not start."""
    return run(_main, argv)


def _main(argv):
    def define(values):
        default = 'the folder of the run, and its only state; by default runs/CONFIG[-variant]'
        flags.DEFINE_string('workdir', None, default, flag_values=values)
        default = 'be one of several processes, and fail where there are no others; by default tried where recognised'
        flags.DEFINE_boolean('distributed', None, default, flag_values=values)

    config, values, words = parse(argv, __doc__, define)
    if words:
        raise InputError(f'{words[0]}: not understood; flags start with --')
    workdir = values.workdir or f'runs/{config_name(argv)}'
    from m2snet_jax import hosts, mesh  # here and below, because jax takes a second to import and --help should not

    hosts.join(values.distributed)
    mesh.use_compilation_cache()
    from m2snet_jax.evaluation.sheet import read_sheet
    from m2snet_jax.evaluation.table import text
    from m2snet_jax.training.logs import say
    from m2snet_jax.training.loop import train_and_evaluate

    say(f'run folder: {workdir}')
    try:
        train_and_evaluate(config, workdir)
    except FloatingPointError as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    except Exception as error:
        hosts.end_if_another_did(error)
        raise
    if hosts.is_first():
        print(text(read_sheet(workdir)))
    return 0
