"""The marks: for every outcome its largest relative error in each dtype, and how much of it is allowed in float64."""

import itertools
import math
import sys

import jax
from flax import nnx
from tqdm import tqdm

from m2snet_jax.parity.differences import array_error, by_part, moment_errors, projection_errors
from m2snet_jax.parity.outcomes import Outcomes

DTYPES = ('float64', 'float32', 'bfloat16')
EXACT, ALONG = 1e-9, 1e-6  # of everything, and along the updates
LABELS = {
    'structure_loss_released': 'structure loss, as released',
    'structure_loss_weighted': 'structure loss, weighted as in the papers',
    'lossnet': 'LossNet',
    'total': 'total loss',
}
ALONG_NOTE = (
    'Each update multiplies a difference about a thousandfold, so that what lies after them depends on the last bit of '
    'the weights before. Where the mark is above 1e-6 it is how far runs lie apart that differ by rounding alone, '
    'measured here: as they are, with every parameter one bit up or down, with the images of each batch in reverse.'
)


def compare(goldens, dtypes):
    """Runs everything in each of `dtypes` and returns the rows of a table.

    A row is {'what', 'mark', one error for each of dtypes, 'worst', 'passed'}: `worst` is the PyTorch name with the
    largest error in the first dtype, None where there is one only; `passed` is None where float64 was not run.
    """
    columns, marks = {}, {}
    for dtype in tqdm(dtypes, goldens.name, unit='dtype', disable=None, file=sys.stderr):
        outcomes = Outcomes(goldens, dtype)
        trained = outcomes.trajectory(outcomes.model())
        columns[dtype] = _errors(goldens, outcomes) | _along(trained, (goldens.arrays, goldens.values))
        if dtype == 'float64':
            marks = _marks(columns[dtype], outcomes, trained)
    rows = []
    for what, (_, worst) in columns[dtypes[0]].items():
        errors = {dtype: float(column[what][0]) for dtype, column in columns.items()}
        passed = errors['float64'] <= marks[what] if marks else None
        rows.append({'what': what, 'mark': marks.get(what), **errors, 'worst': worst, 'passed': passed})
    return rows


def _errors(goldens, outcomes):
    """Returns {what: (error, worst PyTorch name or None)} of evaluation and of one training step."""
    truth = goldens.values
    arrays, values = outcomes.training_step()
    logits = outcomes.evaluation(outcomes.model(), goldens.sizes['eval'])
    errors = {f'logits, evaluation, {key.split("_")[-1]}': _array(logits, goldens.arrays, key) for key in logits}
    errors['logits, training'] = _array(arrays, goldens.arrays, 'train_logits')
    errors |= {label: (_scalar(values[key], truth[key]), None) for key, label in LABELS.items()}
    errors['gradient of the logits'] = _array(arrays, goldens.arrays, 'train_logits_grad')
    gradients = projection_errors(values['grads'], truth['grads'])
    errors |= {f'gradients, {part}': found for part, found in by_part(gradients).items()}
    statistics = moment_errors(values['buffers_after_one_step'], truth['buffers_after_one_step'])
    return errors | {f'running statistics, {part}': found for part, found in by_part(statistics).items()}


def _array(ours, truths, key):
    return array_error(ours[key], truths[key]), None


def _scalar(ours, truth):
    return abs(ours - truth) / abs(truth)


def _along(trained, truth):
    """Returns {what: (error, worst name or None)} of the (arrays, values) along and after the updates."""
    (arrays, values), (true_arrays, true_values), errors = trained, truth, {}
    for index, (row, true_row) in enumerate(zip(values['trajectory'], true_values['trajectory'], strict=True)):
        found = [(_scalar(row[key], true_row[key]), key) for key in true_row]
        errors[f'rate and losses after {_updates(index)}'] = max(found, key=_size)
    weights = projection_errors(values['params_after_trajectory'], true_values['params_after_trajectory'])
    count = _updates(len(values['trajectory']))
    errors[f'parameters after {count}'] = max(((error, name) for name, error in weights.items()), key=_size)
    errors[f'logits after {count}'] = _array(arrays, true_arrays, 'eval_logits_after_trajectory')
    return errors


def _marks(errors, outcomes, trained):
    """Returns {what: mark} of the errors in float64."""
    marks = {what: ALONG if ' after ' in what else EXACT for what in errors}
    ends = [what for what in errors if ' after ' in what]
    if any(not errors[what][0] <= ALONG for what in ends):
        runs = [trained, outcomes.trajectory(outcomes.model(), reverse=True)]
        runs += [outcomes.trajectory(_times(outcomes.model(), 1 + bit * 2.0**-52)) for bit in (1, -1)]
        apart = [_along(*pair) for pair in itertools.combinations(runs, 2)]
        marks |= {what: max(ALONG, *(float(pair[what][0]) for pair in apart)) for what in ends}
    return marks


def _times(model, factor):
    """Multiplies every parameter."""
    graph, params, others = nnx.split(model, nnx.Param, ...)
    return nnx.merge(graph, jax.tree.map(lambda value: value * factor, params), others)


def _size(pair):
    return math.isnan(pair[0]), pair[0]


def _updates(count):
    return f'{count} update{"" if count == 1 else "s"}'
