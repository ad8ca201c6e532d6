"""Trains a model and scores it on the test sets, or resumes the run in its folder.

python train.py --config=configs/CONFIG.py[:VARIANT] [--workdir=DIR] [--root=DATA] [--config.key=value …]
python -m m2snet_jax train …          the same

On several hosts, run the same command on each, with a --workdir that all of them can access. On a cluster that jax
recognises (TPU pod, SLURM, Kubernetes, Open MPI) the hosts find each other. Elsewhere set JAX_COORDINATOR_ADDRESS,
JAX_NUM_PROCESSES and JAX_PROCESS_ID on each. Exit status 1: a loss is NaN or infinite.

--compile-only compiles the programs of the run into the cache of compiled programs, and ends. It needs the data,
because the compiled code depends on the number of steps, but no weights and no --workdir.
"""

import sys

from absl import flags

from m2snet_jax.commands import parse, run, run_name


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit status: 0 done, 1 the loss is not finite, 2 could not start."""
    return run(_main, argv)


def _main(argv):
    def define(values):
        default = 'folder of the run; by default runs/CONFIG or runs/CONFIG-VARIANT'
        flags.DEFINE_string('workdir', None, default, flag_values=values)
        default = 'run as one of several processes; default: on a cluster that jax recognises, or with the '
        default += 'JAX_ variables above'
        flags.DEFINE_boolean('distributed', None, default, flag_values=values)
        default = 'compile the programs of the run into the cache of compiled programs, and end'
        flags.DEFINE_boolean('compile-only', False, default, flag_values=values)

    given = parse(argv, __doc__, define)
    workdir = given.flags.workdir or f'runs/{run_name(given.config_name)}'
    # Imported here, as in every command: importing jax takes a second, and --help must not wait for it.
    from m2snet_jax.devices import processes
    from m2snet_jax.devices.programs import use_compilation_cache

    processes.join(given.flags.distributed)
    use_compilation_cache()
    if given.flags['compile-only'].value:
        from m2snet_jax.training.compiled_steps import compile_programs

        compile_programs(given.config)
        return 0
    from m2snet_jax.evaluation.sheets import read_summary
    from m2snet_jax.evaluation.table import text
    from m2snet_jax.training.logs import log
    from m2snet_jax.training.loop import train_and_evaluate

    log(f'run folder: {workdir}')
    try:
        train_and_evaluate(given.config, workdir)
    except FloatingPointError as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    except Exception as error:
        processes.end_if_another_did(error)
        raise
    if processes.is_primary():
        print(text(read_summary(workdir)))
        log(f'report: {workdir}/report.html')
    return 0
