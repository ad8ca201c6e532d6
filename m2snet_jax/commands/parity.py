"""Compares the networks with the released PyTorch program on this machine.

python -m m2snet_jax parity [--golden=DIR] [--weights=FILE] [--models=…] [--dtypes=…] [--json] [--html [--output=DIR]]

From seeded weights and inputs the command computes logits, losses, gradients, running statistics and a few optimizer
steps. It compares them with golden values, which are outputs of the released modules in float64, and prints the largest
relative errors in float64, float32 and bfloat16. The error in float64 must not exceed the tolerance. The golden values
are in tests/golden of a checkout of the repository. --weights names a PyTorch or safetensors file to use instead of the
seeded weights; then also give one model with --models and its golden values with --golden. --html also writes the
tables to parity.html in the folder --output. Exit status 1: a tolerance is exceeded.
"""

import json
import sys
from pathlib import Path

from absl import flags

from m2snet_jax.commands import parse, run
from m2snet_jax.errors import InputError

GOLDEN = Path(__file__).parents[2] / 'tests' / 'golden'
MODELS, DTYPES = ('msnet', 'm2snet'), ('float64', 'float32', 'bfloat16')


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit status: 0 within tolerance, 1 an error is larger, 2 could not start."""
    return run(_main, argv)


def _main(argv):
    def define(values):
        flags.DEFINE_string('golden', str(GOLDEN), 'folder of golden values', flag_values=values)
        flags.DEFINE_string('weights', None, 'file of weights to use instead of the seeded weights', flag_values=values)
        flags.DEFINE_list('models', list(MODELS), f'models to compare, of {", ".join(MODELS)}', flag_values=values)
        flags.DEFINE_list('dtypes', list(DTYPES), f'dtypes to compute in, of {", ".join(DTYPES)}', flag_values=values)
        flags.DEFINE_bool('json', False, 'print JSON', flag_values=values)
        flags.DEFINE_bool('html', False, 'also write a web page, parity.html', flag_values=values)
        flags.DEFINE_string('output', '.', 'folder of the web page', flag_values=values)

    values = parse(argv, __doc__, define, config=None).flags
    for flag, given, known in (('models', values.models, MODELS), ('dtypes', values.dtypes, DTYPES)):
        if not given or not set(given) <= set(known):
            raise InputError(f'--{flag}={",".join(given)}: give some of {", ".join(known)}')
    if values.weights is not None and len(values.models) != 1:
        raise InputError('--weights: name the model of these weights with --models=msnet or --models=m2snet')

    import jax

    from m2snet_jax.devices.mesh import describe, make_mesh
    from m2snet_jax.devices.programs import use_compilation_cache
    from m2snet_jax.parity.goldens import Goldens
    from m2snet_jax.parity.parity_page import page
    from m2snet_jax.parity.parity_text import text
    from m2snet_jax.parity.tolerances import compare
    from m2snet_jax.storage import json_value, versions, write
    from m2snet_jax.weights import read_torch_file

    use_compilation_cache()
    weights = None if values.weights is None else read_torch_file(values.weights)
    with jax.enable_x64(True):
        cases = [Goldens(values.golden, name, weights) for name in values.models]
        target = _make_folder(values.output) / 'parity.html' if values.html else None
        tables = {case.name: compare(case, values.dtypes) for case in cases}
    report = {
        'golden': values.golden,
        'weights': values.weights,
        'device': describe(make_mesh()),
        'versions': versions(),
        'passed': all(row['passed'] is not False for rows in tables.values() for row in rows),
        'models': tables,
    }
    print(json.dumps(json_value(report)) if values.json else text(report))
    if target:
        write(target, page(report))
        print(f'wrote {target}', file=sys.stderr)
    return 0 if report['passed'] else 1


def _make_folder(name):
    try:
        Path(name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f'--output={name}: cannot be made ({error.strerror}); name another folder') from None
    return Path(name)
