"""Measures the time of training and prediction steps, of the data pipeline and of the scoring on this machine.

python -m m2snet_jax benchmark --config=NAME [--what=KIND,…] [--batch=N] [--size=S] [--repeats=N] [--json]
    [--distributed]

The kinds of --what:

inference, training (the default): the time of one prediction or training step. Compilation is timed separately. The
time of a float32 matrix product of size 2048³ is also measured, to compare times of different machines.
data: training images/s, from the cache and with decoding. Without data.root, generated images are used.
metrics: milliseconds to score one image of 352×288, and the time to read and score 798 images, as many as the polyp
test sets have, on all cores.
scaling: images/s of the training step on one CPU device, on two devices and in two processes, with the same batch.
family: a table of networks and encoders: parameters, multiply-adds and milliseconds of one image.
start: seconds to compile the training steps of all sizes, in one thread and in two; seconds from the start of `train`
to the first loss, with an empty cache and with a filled one.
"""

import json

from absl import flags

from m2snet_jax.commands import parse, run
from m2snet_jax.errors import InputError

KINDS = ('inference', 'training', 'data', 'metrics', 'scaling', 'family', 'start')


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit status."""
    return run(_main, argv)


def _main(argv):
    def define(values):
        flags.DEFINE_list('what', list(KINDS[:2]), f'kinds to measure, of {", ".join(KINDS)}', flag_values=values)
        flags.DEFINE_integer('batch', None, "images per step; by default the config's", flag_values=values)
        flags.DEFINE_integer('size', None, "side in pixels; by default the config's data.size", flag_values=values)
        flags.DEFINE_integer('repeats', 10, 'timed repetitions of each step', flag_values=values)
        flags.DEFINE_bool('json', False, 'print JSON', flag_values=values)
        flags.DEFINE_bool(
            'distributed',
            None,
            'run as one of several processes; default: on a cluster that jax recognises, or with the JAX_ variables of '
            'train --help',
            flag_values=values,
        )

    config, _, values, _ = parse(argv, __doc__, define)
    for kind in values.what:
        if kind not in KINDS:
            raise InputError(f'--what={kind}: must be one of {", ".join(KINDS)}')
    if values.repeats < 1:
        raise InputError(f'--repeats={values.repeats}: must be at least 1')
    config.batch = config.batch if values.batch is None else values.batch
    config.data.size = config.data.size if values.size is None else values.size
    # Time does not depend on the weights, so none are downloaded.
    config.model.encoder_weights = config.model.weights = config.loss.lossnet_weights = None

    from m2snet_jax.build import check_config
    from m2snet_jax.devices import processes
    from m2snet_jax.devices.mesh import check_batch, make_mesh
    from m2snet_jax.devices.programs import use_compilation_cache

    check_config(config)
    processes.join(values.distributed)
    use_compilation_cache()
    mesh = make_mesh()
    check_batch(config.batch, config.gradient_accumulation, mesh)
    from m2snet_jax.benchmark.measurements import measure, text

    results = measure(values.what, config, mesh, values.repeats, argv[1:])
    if processes.is_primary():
        print(json.dumps(results) if values.json else text(results, config))
