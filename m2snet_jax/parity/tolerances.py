"""The largest relative error of every outcome in each dtype, and its tolerance in float64."""

import itertools
import math
import sys
from collections.abc import Sequence
from typing import Any

import jax
from flax import nnx
from tqdm import tqdm

from m2snet_jax.parity.differences import array_error, by_part, moment_errors, projection_errors
from m2snet_jax.parity.goldens import Goldens
from m2snet_jax.parity.outcomes import Outcomes

DTYPES = ('float64', 'float32', 'bfloat16')
TOLERANCE = 1e-9
UPDATES_TOLERANCE = 1e-6  # during and after the updates, which amplify rounding
LABELS = {
    'structure_loss_released': 'structure loss, as released',
    'structure_loss_weighted': 'structure loss, weighted as in the papers',
    'lossnet': 'LossNet',
    'total': 'total loss',
}
UPDATES_NOTE = (
    'Each update multiplies a difference by about 1000. A tolerance above 1e-6 is the largest difference between runs '
    'that differ only by rounding: unchanged, with every parameter one bit larger or smaller, and with the images of '
    'each batch in reverse order.'
)


def compare(goldens: Goldens, dtypes: Sequence[str]) -> list[dict[str, Any]]:
    """Runs one model in each of `dtypes` and returns the rows of a table.

    A row is {'what', 'tolerance', one error for each of dtypes, 'worst', 'passed'}: `worst` is the PyTorch name with
    the largest error in the first dtype, None where there is one only; `passed` is None where float64 was not run.
    """
    columns, tolerances = {}, {}
    for dtype in tqdm(dtypes, goldens.name, unit='dtype', disable=None, file=sys.stderr):
        outcomes = Outcomes(goldens, dtype)
        trained = outcomes.trajectory(outcomes.model())
        after = _errors_after_updates(trained, (goldens.arrays, goldens.values))
        columns[dtype] = _errors(goldens, outcomes) | after
        if dtype == 'float64':
            tolerances = _tolerances(columns[dtype], outcomes, trained)
    rows = []
    for what, (_, worst) in columns[dtypes[0]].items():
        errors = {dtype: float(column[what][0]) for dtype, column in columns.items()}
        passed = errors['float64'] <= tolerances[what] if tolerances else None
        rows.append({'what': what, 'tolerance': tolerances.get(what), **errors, 'worst': worst, 'passed': passed})
    return rows


def _errors(goldens, outcomes):
    """Returns {what: (error, worst PyTorch name or None)} of evaluation and of one training step."""
    golden = goldens.values
    arrays, values = outcomes.training_step()
    logits = outcomes.evaluation(outcomes.model(), goldens.sizes['eval'])
    errors = {f'logits, evaluation, {key.split("_")[-1]}': _array(logits, goldens.arrays, key) for key in logits}
    errors['logits, training'] = _array(arrays, goldens.arrays, 'train_logits')
    errors |= {label: (_scalar(values[key], golden[key]), None) for key, label in LABELS.items()}
    errors['gradient of the logits'] = _array(arrays, goldens.arrays, 'train_logits_grad')
    gradients = projection_errors(values['grads'], golden['grads'])
    errors |= {f'gradients, {part}': found for part, found in by_part(gradients).items()}
    statistics = moment_errors(values['buffers_after_one_step'], golden['buffers_after_one_step'])
    return errors | {f'running statistics, {part}': found for part, found in by_part(statistics).items()}


def _array(arrays, goldens, key):
    return array_error(arrays[key], goldens[key]), None


def _scalar(value, golden):
    return abs(value - golden) / abs(golden)


def _errors_after_updates(trained, golden):
    """Returns {what: (error, worst name or None)} of the (arrays, values) during and after the updates."""
    (arrays, values), (golden_arrays, golden_values), errors = trained, golden, {}
    for index, (row, golden_row) in enumerate(zip(values['trajectory'], golden_values['trajectory'], strict=True)):
        found = [(_scalar(row[key], golden_row[key]), key) for key in golden_row]
        errors[f'learning rate and losses after {_updates(index)}'] = max(found, key=_nan_last)
    weights = projection_errors(values['params_after_trajectory'], golden_values['params_after_trajectory'])
    count = _updates(len(values['trajectory']))
    errors[f'parameters after {count}'] = max(((error, name) for name, error in weights.items()), key=_nan_last)
    errors[f'logits after {count}'] = _array(arrays, golden_arrays, 'eval_logits_after_trajectory')
    return errors


def _tolerances(errors, outcomes, trained):
    """Returns {what: tolerance} of the errors in float64."""
    tolerances = {what: UPDATES_TOLERANCE if ' after ' in what else TOLERANCE for what in errors}
    after = [what for what in errors if ' after ' in what]
    if any(not errors[what][0] <= UPDATES_TOLERANCE for what in after):
        runs = [trained, outcomes.trajectory(outcomes.model(), reverse=True)]
        runs += [outcomes.trajectory(_multiplied(outcomes.model(), 1 + bit * 2.0**-52)) for bit in (1, -1)]
        differences = [_errors_after_updates(*pair) for pair in itertools.combinations(runs, 2)]
        tolerances |= {what: max(UPDATES_TOLERANCE, *(float(pair[what][0]) for pair in differences)) for what in after}
    return tolerances


def _multiplied(model, factor):
    """Returns a model with every parameter multiplied."""
    graph, params, others = nnx.split(model, nnx.Param, ...)
    return nnx.merge(graph, jax.tree.map(lambda value: value * factor, params), others)


def _nan_last(pair):
    return math.isnan(pair[0]), pair[0]


def _updates(count):
    return f'{count} update{"" if count == 1 else "s"}'
