"""The charts of the page of a run, each with its caption."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from m2snet_jax.evaluation import table
from m2snet_jax.metrics import expected_calibration_error
from m2snet_jax.report import charts
from m2snet_jax.report.curves import training_charts

Figure = tuple[Markup, str]  # a chart and its caption


def training_figures(folder: Path) -> list[Figure]:
    """Returns the curves of the loss and, where images are held out for validation, of Dice on them."""
    return [
        (chart, 'Training loss against steps.' if key == 'loss' else f'{key}, on images held out of training.')
        for key, chart in training_charts(folder)
    ]


def spread_figures(rows: list[dict[str, Any]], several: bool) -> Iterator[Figure]:
    """Yields charts of Dice of single images, also against the size of the lesion, and of false alarms."""
    dice, size, alarms = [], [], []
    for row in rows:
        pixels = sum(float(row[f'hard/{key}']) for key in ('TP', 'FP', 'FN', 'TN'))
        lesion = float(row['hard/TP']) + float(row['hard/FN'])
        if lesion:
            dice.append(float(row['hard/Dice']))
            size.append(100 * lesion / pixels)
        else:
            alarms.append(100 * float(row['hard/FP']) / pixels)
    unit = 'images and classes' if several else 'images'
    if alarms:
        yield (
            charts.histogram(alarms, 'false alarm, % of the image', unit, x_range=(0, max(1, max(alarms)))),
            f'Area of the false alarm in {len(alarms)} {unit} without a lesion. The best value is 0.',
        )
    if dice:
        yield (
            charts.histogram(dice, 'Dice of one image', unit),
            f'Number of {unit} by Dice (hard, cut at one half). Bars at the left are missed lesions.',
        )
        yield (
            charts.scatter(size, dice, 'lesion, % of the image', 'Dice'),
            'Each dot is one lesion mask: its size and the Dice of its map. Small lesions are at the left.',
        )


def curve_figures(curves: dict[str, Any], calibration: Sequence[Sequence[float]], suffix: str) -> Iterator[Figure]:
    """Yields precision against recall, scores against the threshold, and calibration of one class."""
    recall, precision = curves['released/recall'], curves['released/precision']
    if not max(recall):
        return  # without a lesion these charts have no meaning
    unit: dict[str, Any] = {'x_range': (0, 1), 'y_range': (0, 1)}
    yield (
        charts.line_chart([('precision', recall, precision)], 'recall', 'precision', **unit),
        'Precision (share of the marked area that is lesion) against recall (share of the lesion that is marked) as '
        f'the threshold falls{suffix}. Means over images, each map stretched to its full range (released).',
    )
    thresholds = curves['pranet/thresholds']
    names = {'Dice': 'Dice', 'IoU': 'IoU', 'sensitivity': 'Sen', 'specificity': 'Spe'}
    series = [(name, thresholds, curves[f'pranet/{key}']) for name, key in names.items()]
    yield (
        charts.line_chart(series, 'threshold', 'score', **unit),
        f'Scores against the threshold (pranet){suffix}. Where Dice is flat, the threshold has little effect.',
    )
    counts = np.array(calibration)
    pixels, probability, lesion = counts
    used = pixels > 0
    points = [('calibration', probability[used] / pixels[used], lesion[used] / pixels[used])]
    yield (
        charts.line_chart(points, 'predicted probability', 'share of lesion pixels', diagonal=True, **unit),
        f'Calibration{suffix}: the share of lesion pixels among pixels of a predicted probability. On the dashed line '
        'both are equal; below it the model is overconfident. Expected calibration error: '
        f'{expected_calibration_error(counts):.4f}.',
    )


def doubt_figures(doubt: dict[str, Any]) -> Iterator[Figure]:
    """Yields risk against coverage by each doubt, beside the ideal and the random order."""
    for name, one in doubt.items():
        coverage, mean = one['coverage'], one['risk'][-1]
        series = [
            ('by doubt', coverage, one['risk']),
            ('ideal order', coverage, one['ideal_risk']),
            ('random order', (0, 1), (mean, mean)),
        ]
        yield (
            charts.line_chart(series, 'coverage', 'mean of 1 − Dice', x_range=(0, 1)),
            f'Risk against coverage, doubt by {table.DOUBTS[name]}: the mean error of the images of least doubt, for '
            'each share of images kept. If doubt finds the failures, the line is near the ideal order.',
        )


def calibration_figures(summary: dict[str, Any]) -> list[Figure]:
    """Returns the calibration of each calibrated model on its validation images, before and after."""
    figures = []
    for one in summary.get('calibrations', []):
        series = []
        for name, counts in one['calibration'].items():
            pixels, probability, lesion = np.array(counts)
            used = pixels > 0
            series.append((name, probability[used] / pixels[used], lesion[used] / pixels[used]))
        error, unit = one['calibration_error'], (0, 1)
        labels = 'predicted probability', 'share of lesion pixels'
        figures.append(
            (
                charts.line_chart(series, *labels, x_range=unit, y_range=unit, diagonal=True),
                f'Calibration on {one["images"]} validation images before and after dividing the logits by the '
                f'temperature {one["temperature"]:.3f}. Expected calibration error: {error["before"]:.4f} before, '
                f'{error["after"]:.4f} after.',
            )
        )
    return figures
