"""The page of a run: one HTML file that needs nothing else, with scores, curves and cases.

It is made from Scores, the pictures in `scores/cases` and `metrics.jsonl`, so that it can be made again.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from PIL import Image

from m2snet_jax.config import flatten
from m2snet_jax.evaluation import table
from m2snet_jax.evaluation.published import legend
from m2snet_jax.evaluation.scores import Scores
from m2snet_jax.metrics import expected_calibration_error
from m2snet_jax.report import charts
from m2snet_jax.report.curves import training_charts
from m2snet_jax.report.rendering import picture_url, render
from m2snet_jax.storage import write

CASES = {
    'worst': ('Worst cases', 'The images with a lesion on which the scores are lowest, the worst first.'),
    'best': ('Best cases', 'The images with a lesion on which the scores are highest, the best first.'),
    'lesion_free': ('False alarms', 'Images without a lesion and with a false alarm, the largest area first.'),
}
PANELS = ('image', 'mask', 'map', 'errors')
Figure = tuple[Markup, str]  # a chart and its caption


def write_report(scores: Scores, folder: str | Path) -> Path:
    """Writes `report.html` of Scores into the folder of their run or evaluation and returns its path.

    Raises:
        InputError: the page cannot be written.
    """
    folder, summary = Path(folder), scores.summary
    test_sets = [_test_set(folder, scores, name, entry) for name, entry in table.test_sets(summary)]
    config, bootstrap = summary.get('config'), summary.get('bootstrap')
    page = render(
        'report.html.j2',
        title=f'Scores of {folder.resolve().name}',
        subject=_subject(summary),
        headlines=[_headline(test_set) for test_set in test_sets],
        level=f'{bootstrap["level"]:.0%}' if bootstrap and bootstrap['resamples'] else '',
        published_note=_published_note(summary, test_sets),
        warnings=[*summary['warnings'], *_missing_maps(summary)],
        test_sets=test_sets,
        folds={'heads': ('fold', 'images', 'models', *table.FOLD_COLUMNS), 'rows': table.fold_rows(summary)},
        calibrations=_calibration_figures(summary),
        training=_training_figures(folder),
        about=_about(summary),
        departures=table.departures(config) if config else [],
        settings=flatten(config) if config else {},
    )
    path = folder / 'report.html'
    write(path, page)
    return path


def _subject(summary):
    """Returns which model was scored on what, in a line; '' for maps of unknown origin."""
    config = summary.get('config')
    if not config:
        return ''
    if 'maps' in summary:
        return f'Maps of {summary["maps"]} on {config["data"]["name"]}'
    steps = f', {summary["step"]} training steps' if 'step' in summary else ''
    return f'{config["model"]["name"]} with {config["model"]["encoder"]} on {config["data"]["name"]}{steps}'


def _about(summary):
    """Returns {name: value} of what identifies the scores."""
    config = summary.get('config')
    return {
        'model': config and f'{config["model"]["name"]}, {config["model"]["encoder"]}',
        'data': config and config['data']['name'],
        'steps trained': summary.get('step'),
        'weights': summary.get('model'),
        'prediction': table.prediction_text(summary),
        'maps': summary.get('maps'),
        'masks': summary.get('masks'),
        'hash of the model': summary.get('model_hash'),
        'hash of data and split': summary.get('manifest_hash'),
        'versions': ', '.join(f'{name} {version}' for name, version in summary.get('versions', {}).items()),
    }


def _missing_maps(summary):
    for test_set, names in summary.get('missing', {}).items():
        yield f'{test_set}: {len(names)} maps were missing and are not in these scores: {", ".join(names)}'


def _training_figures(folder: Path) -> list[Figure]:
    """Returns the curves of the loss and, where images are held out for validation, of Dice on them."""
    return [
        (chart, 'Training loss against steps.' if key == 'loss' else f'{key}, on images held out of training.')
        for key, chart in training_charts(folder)
    ]


def _test_set(folder, scores, name, entry):
    """Returns tables, figures and cases of one test set."""
    summary, details = scores.summary, scores.details[name]
    several = len(details['classes']) > 1
    figures = list(_spread_figures([row for row in scores.per_image if row['set'] == name], several))
    figures += _doubt_figures(details.get('doubt', {}))
    for number, (curves, calibration) in enumerate(zip(details['classes'], details['calibration'], strict=True), 1):
        figures += _curve_figures(curves, calibration, f', class {number}' if several else '')
    return {
        'name': name,
        'images': entry['images'],
        'tables': [_table(*section) for section in table.sections(summary, name)],
        'doubts': table.doubt_rows(summary, name),
        'notes': ' '.join(_notes(summary, name, entry)),
        'figures': figures,
        'cases': list(_cases(folder, details['cases'])),
    }


def _table(title, explanation, rows):
    shown = [
        {
            'name': row['name'].replace('_', ' '),
            'figure': table.number(row),
            'interval': table.bounds(row),
            'published': row['published'],
        }
        for row in rows
    ]
    models = list(dict.fromkeys(model for row in shown for model in row['published']))
    return {'title': title, 'explanation': explanation, 'rows': shown, 'models': models}


def _notes(summary, test_set, entry):
    """Yields the sentences below the tables of a test set."""
    yield from legend(table.published_beside(summary, test_set))
    bootstrap = summary['bootstrap']
    if bootstrap['resamples']:
        yield (
            f'Intervals are valid for other {entry["resampled"]} of the same kind. They are from '
            f'{bootstrap["resamples"]} bootstrap resamples of {entry["resampled"]}, seed {bootstrap["seed"]}.'
        )


def _headline(test_set):
    """Returns the main scores of a test set: Dice, or false alarms where no image has a lesion."""
    rows = {(one['title'], row['name']): row for one in test_set['tables'] for row in one['rows']}
    scores = []
    if dice := rows.get(('hard', 'Dice')):
        count = rows['hard', 'count']['figure']
        about = f'Map cut at one half; mean over {count} images with a lesion'
        scores.append({**dice, 'name': 'Dice (hard)', 'about': about})
        if released := rows.get(('released', 'Dice')):
            about = 'By the script of the released program, like the published figures'
            scores.append({**released, 'name': 'Dice (released)', 'about': about})
    elif alarms := rows.get(('lesion-free', 'false positive share')):
        count = rows['lesion-free', 'count']['figure']
        scores.append({**alarms, 'name': 'False alarms', 'about': f'Share of {count} images without a lesion'})
    return {'test_set': f'{test_set["name"]}: {test_set["images"]} images', 'scores': scores}


def _published_note(summary, test_sets):
    """Returns the sources of the published figures in the headlines; '' where there are none."""
    beside = {one['name']: table.published_beside(summary, one['name']).get('released/Dice', {}) for one in test_sets}
    lines = legend(beside)
    if lines and summary.get('config') and table.departures(summary['config']):
        lines.append('This model was not trained by the released recipe, see Settings.')
    return ' '.join(lines)


def _spread_figures(rows: list[dict[str, Any]], several: bool) -> Iterator[Figure]:
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


def _curve_figures(curves, calibration, suffix) -> Iterator[Figure]:
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


def _doubt_figures(doubt: dict[str, Any]) -> Iterator[Figure]:
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


def _calibration_figures(summary: dict[str, Any]) -> list[Figure]:
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


def _cases(folder, cases):
    """Yields the kinds of cases that there are, each with its cases."""
    for kind, (title, about) in CASES.items():
        chosen = [case for case in cases if case['kind'] == kind]
        if chosen:
            yield {'title': title, 'about': about, 'cases': [_case(folder, case) for case in chosen]}


def _case(folder, case):
    """Returns one case as four pictures."""
    with Image.open(folder / 'scores' / 'cases' / case['file']) as file:
        panels = np.split(np.asarray(file.convert('RGB')), len(PANELS), axis=1)
    return {
        'name': case['name'],
        'score': '' if case['kind'] == 'lesion_free' else f': Dice {case["Dice"]:.3f}',
        'panels': [(panel, picture_url(pixels)) for panel, pixels in zip(PANELS, panels, strict=True)],
    }
