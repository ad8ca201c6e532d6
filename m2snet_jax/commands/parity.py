"""Proves on this machine that the networks compute what the released PyTorch program computes.

python -m m2snet_jax parity [--golden=DIR] [--weights=FILE] [--models=…] [--dtypes=…] [--json | --html]

Rebuilds seeded weights and inputs, runs evaluation, a training step with its gradients and running statistics, and a
few updates, and compares each with golden values that the released modules gave in float64. For each it prints the
largest relative error in float64, which has to stay below the mark, in float32 and in bfloat16. The goldens lie in
tests/golden of a checkout. With --weights, a PyTorch or safetensors file takes the place of the seeded weights of the
one model that --models names: the goldens must be that file's. Exit status 1 if a mark is missed.
"""

import html
import json
import math
from pathlib import Path

from absl import flags

from m2snet_jax.commands import parse, run
from m2snet_jax.errors import InputError

GOLDEN = Path(__file__).parents[2] / 'tests' / 'golden'
EXACT, ALONG = 1e-9, 1e-6  # marks: of everything, and along the updates
PEAK = 0.002  # rate of the updates
MODELS, DTYPES = ('msnet', 'm2snet'), ('float64', 'float32', 'bfloat16')
LABELS = {
    'structure_loss_released': 'structure loss, as released',
    'structure_loss_weighted': 'structure loss, weighted as in the papers',
    'lossnet': 'LossNet',
    'total': 'total loss',
}
LOSSES = ('structure', 'lossnet')  # beside the total
MOVED = (
    'Each update multiplies a difference about a thousandfold, so that what lies after them depends on the last bit of '
    'the weights before. Where the mark is above 1e-6 it is the largest movement that a change of every parameter by '
    'one bit makes, measured here.'
)


def main(argv):
    """Runs the command; returns its exit status: 0 all marks kept, 1 a mark missed, 2 could not start."""
    return run(_main, argv)


def _main(argv):
    def define(values):
        flags.DEFINE_string('golden', str(GOLDEN), 'folder of golden values', flag_values=values)
        flags.DEFINE_string('weights', None, 'file in place of the seeded weights', flag_values=values)
        flags.DEFINE_list('models', list(MODELS), f'of {", ".join(MODELS)}', flag_values=values)
        flags.DEFINE_list('dtypes', list(DTYPES), f'of {", ".join(DTYPES)}', flag_values=values)
        flags.DEFINE_bool('json', False, 'print JSON', flag_values=values)
        flags.DEFINE_bool('html', False, 'print a web page', flag_values=values)

    for word in argv[1:]:
        if word.lstrip('-').startswith(('config', 'root')):
            raise InputError(f'{word}: parity takes no config, the goldens say what is run')
    _, values, words = parse([argv[0], '--config=default', *argv[1:]], __doc__, define)
    if words:
        raise InputError(f'{words[0]}: not understood; flags start with --')
    for flag, given, known in (('models', values.models, MODELS), ('dtypes', values.dtypes, DTYPES)):
        if not given or not set(given) <= set(known):
            raise InputError(f'--{flag}={",".join(given)}: give some of {", ".join(known)}')
    if values.weights is not None and len(values.models) != 1:
        raise InputError('--weights: say whose weights these are, with --models=msnet or --models=m2snet')

    import jax

    from m2snet_jax import mesh as devices
    from m2snet_jax.parity import Goldens
    from m2snet_jax.weights import read_torch_file

    devices.use_compilation_cache()
    weights = None if values.weights is None else read_torch_file(values.weights)
    with jax.enable_x64(True):
        cases = [Goldens(values.golden, name, weights) for name in values.models]
        tables = {case.name: compare(case, values.dtypes) for case in cases}
    report = {
        'golden': values.golden,
        'weights': values.weights,
        'device': devices.describe(devices.make_mesh()),
        'passed': all(row['passed'] is not False for rows in tables.values() for row in rows),
        'models': tables,
    }
    print(json.dumps(_plain(report)) if values.json else _page(report) if values.html else _text(report))
    return 0 if report['passed'] else 1


def compare(goldens, dtypes):
    """Runs everything in each of `dtypes` and returns the rows of a table.

    A row is {'what', 'mark', one error for each of dtypes, 'worst', 'passed'}: `worst` is the PyTorch name with the
    largest error in the first dtype, None where there is one only; `passed` is None where float64 was not run.
    """
    columns, marks = {}, {}
    for dtype in dtypes:
        train = _trainer(goldens, dtype)
        trained = train(goldens.model(dtype))
        columns[dtype] = _errors(goldens, dtype) | _along(trained, (goldens.values, goldens.arrays))
        if dtype == 'float64':
            marks = _marks(goldens, columns[dtype], train, trained)
    rows = []
    for what, (_, worst) in columns[dtypes[0]].items():
        errors = {dtype: float(column[what][0]) for dtype, column in columns.items()}
        passed = errors['float64'] <= marks[what] if marks else None
        rows.append({'what': what, 'mark': marks.get(what), **errors, 'worst': worst, 'passed': passed})
    return rows


def _errors(goldens, dtype):
    """Returns {what: (error, worst PyTorch name or None)} of evaluation and of one training step."""
    from m2snet_jax import parity

    truth = goldens.values
    arrays, values = parity.training_step(goldens, dtype)
    logits = parity.evaluation_logits(goldens, dtype, goldens.model(dtype), goldens.sizes['eval'])
    errors = {f'logits, evaluation, {key.split("_")[-1]}': _array(logits, goldens.arrays, key) for key in logits}
    errors['logits, training'] = _array(arrays, goldens.arrays, 'train_logits')
    errors |= {label: (_scalar(values[key], truth[key]), None) for key, label in LABELS.items()}
    errors['gradient of the logits'] = _array(arrays, goldens.arrays, 'train_logits_grad')
    gradients = parity.projection_errors(values['grads'], truth['grads'])
    errors |= {f'gradients, {part}': found for part, found in parity.by_part(gradients).items()}
    moments = parity.moment_errors(values['buffers_after_one_step'], truth['buffers_after_one_step'])
    return errors | {f'running statistics, {part}': found for part, found in parity.by_part(moments).items()}


def _array(ours, truths, key):
    from m2snet_jax.parity import array_error

    return array_error(ours[key], truths[key]), None


def _scalar(ours, truth):
    return abs(ours - truth) / abs(truth)


def _trainer(goldens, dtype):
    """Returns a function that trains a model a few steps, by the very step that training runs.

    It returns (values, arrays) as the goldens store them.
    """
    from flax import nnx

    from m2snet_jax import parity
    from m2snet_jax.training.optimizer import sgd, triangle
    from m2snet_jax.training.step import create_train_state, make_train_step
    from m2snet_jax.weights import state_dict

    steps, sizes = goldens.sizes['steps'], (goldens.sizes['train'], goldens.sizes['size2'])
    rate = triangle(PEAK, steps, 1)
    optimizer = sgd(rate)
    lossnet_graph, lossnet_params = nnx.split(goldens.lossnet(dtype))
    step = make_train_step(nnx.split(goldens.model(dtype))[0], optimizer, lossnet_graph)

    def train(model):
        rows, (graph, state) = [], create_train_state(model, optimizer)
        for index in range(steps):
            state, losses = step(state, lossnet_params, goldens.batch(f'step{index}', sizes[index % 2], dtype))
            rows.append({'lr': rate(index), 'total': losses['loss'], **{key: losses[key] for key in LOSSES}})
        model = nnx.merge(graph, state.params, state.batch_stats)
        learned = {name: array for name, array in state_dict(model).items() if not parity.STATISTIC.search(name)}
        weights = parity.projections(learned, goldens.seed)
        logits = parity.evaluation_logits(goldens, dtype, model, goldens.sizes['eval'][:1])
        rows = [{key: float(value) for key, value in row.items()} for row in rows]
        values = {'trajectory': rows, 'params_after_trajectory': weights}
        return values, {'eval_logits_after_trajectory': next(iter(logits.values()))}

    return train


def _along(trained, truth):
    """Returns {what: (error, worst name or None)} of the (values, arrays) after training, or along it."""
    from m2snet_jax import parity

    (values, arrays), (true_values, true_arrays), errors = trained, truth, {}
    for index, (row, true_row) in enumerate(zip(values['trajectory'], true_values['trajectory'], strict=True)):
        found = [(_scalar(row[key], true_row[key]), key) for key in true_row]
        errors[f'rate and losses after {_updates(index)}'] = max(found, key=_size)
    weights = parity.projection_errors(values['params_after_trajectory'], true_values['params_after_trajectory'])
    count = _updates(len(values['trajectory']))
    errors[f'parameters after {count}'] = max(((error, name) for name, error in weights.items()), key=_size)
    errors[f'logits after {count}'] = _array(arrays, true_arrays, 'eval_logits_after_trajectory')
    return errors


def _marks(goldens, errors, train, trained):
    """Returns {what: mark} of the errors in float64."""
    marks = {what: ALONG if ' after ' in what else EXACT for what in errors}
    ends = [what for what in errors if what.startswith(('parameters after', 'logits after'))]
    if any(not errors[what][0] <= ALONG for what in ends):
        moved = _along(train(_one_bit_away(goldens.model('float64'))), trained)
        marks |= {what: max(ALONG, float(moved[what][0])) for what in ends}
    return marks


def _one_bit_away(model):
    """Changes the last bit of every parameter, in float64."""
    import jax
    from flax import nnx

    graph, params, others = nnx.split(model, nnx.Param, ...)
    return nnx.merge(graph, jax.tree.map(lambda value: value * (1 + 2.0**-52), params), others)


def _size(pair):
    return math.isnan(pair[0]), pair[0]


def _updates(count):
    return f'{count} update{"" if count == 1 else "s"}'


def _plain(value):
    """Returns a report in which what JSON cannot hold is text."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _text(report):
    """Returns a report in words, a table for each model."""
    lines = [f'goldens: {report["golden"]}; {report["device"]}']
    if report['weights'] is not None:
        lines.append(f'weights: {report["weights"]}')
    for name, rows in report['models'].items():
        table = _cells(rows)
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines += ['', f'{name}: largest relative errors']
        lines += [
            '  '.join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip() for cells in table
        ]
    return '\n'.join([*lines, '', *_remarks(report)])


def _cells(rows):
    """Returns the table of one model as text, its head first."""
    dtypes = [dtype for dtype in DTYPES if dtype in rows[0]]
    words = {True: 'kept', False: 'MISSED', None: ''}
    table = [['', *dtypes, 'mark', '']]
    for row in rows:
        mark = '' if row['mark'] is None else f'{row["mark"]:.1e}'
        verdict = words[row['passed']] + (f' ({row["worst"]})' if row['passed'] is False and row['worst'] else '')
        table.append([row['what'], *(f'{row[dtype]:.1e}' for dtype in dtypes), mark, verdict])
    return table


def _remarks(report):
    rows = [row for rows in report['models'].values() for row in rows]
    remarks = [MOVED] if any((row['mark'] or 0) > ALONG for row in rows) else []
    judged = [row['passed'] for row in rows if row['passed'] is not None]
    return [*remarks, f'{sum(judged)} of {len(judged)} marks kept' if judged else 'without float64 there are no marks']


def _page(report):
    """Returns a report as a self-contained web page."""
    tables = []
    for name, rows in report['models'].items():
        head, *body = (''.join(f'<td>{html.escape(cell)}</td>' for cell in cells) for cells in _cells(rows))
        missed = (' class="missed"' if row['passed'] is False else '' for row in rows)
        lines = ''.join(f'<tr{kind}>{cells}</tr>\n' for kind, cells in zip(missed, body, strict=True))
        tables.append(f'<h2>{name}</h2>\n<table><thead><tr>{head}</tr></thead>\n<tbody>{lines}</tbody></table>')
    about = f'Largest relative errors against {report["golden"]}, on {report["device"]}'
    about += '' if report['weights'] is None else f', with the weights of {report["weights"]}'
    remarks = ''.join(f'<p>{html.escape(remark)}</p>' for remark in _remarks(report))
    return PAGE.format(about=html.escape(about), tables='\n'.join(tables), remarks=remarks)


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Parity</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 1180px; margin: 0 auto; padding: 1rem; }}
table {{ border-collapse: collapse; }}
td {{ border-bottom: 1px solid #8888; padding: .1rem .8rem .1rem 0; font-variant-numeric: tabular-nums; }}
thead, .missed {{ font-weight: bold; }}
</style></head><body>
<h1>Parity with the released program</h1>
<p>{about}.</p>
{tables}
{remarks}
</body></html>
"""
