"""The page of a run: one HTML file that needs nothing else, for people who were not there.

It is drawn from what `scores/`, `config.json` and `metrics.jsonl` of a folder hold, so that it can be made anew.
"""

import base64
import io
import os
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from m2snet_jax.config import flatten
from m2snet_jax.evaluation.sheet import read_per_image, read_sheet
from m2snet_jax.evaluation.table import bounds, departures, number, sections, test_sets
from m2snet_jax.plot import charts
from m2snet_jax.plot.history import training_charts
from m2snet_jax.report.style import PAGE, STYLE

KINDS = {
    'worst': ('Worst cases', 'The images with a lesion on which the model does worst, the worst first.'),
    'best': ('Best cases', 'Where it does best, the best first.'),
    'lesion_free': ('False alarms', 'Images without any lesion in which the model claims one, the largest area first.'),
}
PANELS = ('image', 'mask', 'map', 'errors')


def write_report(folder):
    """Writes `report.html` into the folder of a run or of an evaluation and returns its path.

    Raises:
        InputError: there are no score sheets, or the page cannot be written.
    """
    folder = Path(folder)
    sheet, details = read_sheet(folder), read_sheet(folder, 'details.json')
    rows = read_per_image(folder)
    body = [_head(folder, sheet), _training(folder)]
    for test_set, entry in test_sets(sheet):
        mine = [row for row in rows if row['set'] == test_set]
        body.append(_test_set(folder, sheet, test_set, entry, mine, details[test_set]))
    body.append(_config(sheet))
    title = escape(f'Scores of {folder.resolve().name}')
    page = PAGE.format(title=title, style=STYLE, body='\n'.join(filter(None, body)))
    path = folder / 'report.html'
    temporary = path.with_name('.report.html')
    temporary.write_text(page, encoding='utf-8')
    os.replace(temporary, path)
    return path


def _head(folder, sheet):
    """What was run, on what."""
    config = sheet.get('config')
    facts = {
        'model': config and f'{config["model"]["name"]}, {config["model"]["encoder"]}',
        'data': config and config['data']['name'],
        'steps trained': sheet.get('step'),
        'weights': sheet.get('model'),
        'maps': sheet.get('maps'),
        'masks': sheet.get('masks'),
        'hash of the model': sheet.get('model_hash'),
        'hash of data and split': sheet.get('manifest_hash'),
        'versions': ', '.join(f'{name} {version}' for name, version in sheet.get('versions', {}).items()),
    }
    lines = ''.join(f'<dt>{key}</dt><dd>{escape(str(value))}</dd>' for key, value in facts.items() if value)
    warnings = ''.join(f'<p class="warning">{escape(line)}</p>' for line in sheet['warnings'])
    missing = ''.join(
        f'<p class="warning">{escape(test_set)}: {len(names)} maps were missing and are not in these scores: '
        f'{escape(", ".join(names))}</p>'
        for test_set, names in sheet.get('missing', {}).items()
    )
    return (
        f'<h1>Scores of {escape(folder.resolve().name)}</h1>{warnings}{missing}<p>A model marked lesions in images; '
        'people had outlined the same lesions. This page shows how far the two agree. 1 is full agreement for every '
        'score but the errors MAE and BER, and the distances HD95 and ASSD in pixels, where 0 is best. For research, '
        f'not for diagnosis.</p><dl>{lines}</dl>'
    )


def _training(folder):
    """Curves of the loss and, where images are held out for validation, of Dice on them."""
    figures = []
    for key, chart in training_charts(folder):
        what = 'Loss, what training lowers' if key == 'loss' else f'{key}, on images held out of training'
        figures.append(_figure(chart, f'{what}, against time.'))
    return f'<h2>Training</h2><div class="figures">{"".join(figures)}</div>' if figures else ''


def _test_set(folder, sheet, test_set, entry, rows, details):
    """Tables, figures and cases of one test set."""
    several = len(details['classes']) > 1
    parts = [
        f'<h2>Test set {escape(test_set)}: {entry["images"]} images</h2>',
        _tables(sheet, test_set, entry),
        '<div class="figures">',
        _spread(rows, several),
    ]
    for index, (curves, calibration) in enumerate(zip(details['classes'], details['calibration'], strict=True), 1):
        parts.append(_curves(curves, calibration, f', class {index}' if several else ''))
    parts.append('</div>')
    for kind, (title, caption) in KINDS.items():
        cases = [case for case in details['cases'] if case['kind'] == kind]
        if cases:
            shown = ''.join(_case(folder, case) for case in cases)
            parts.append(f'<h3>{title}</h3><p>{caption} {_COLOURS}</p><div class="cases">{shown}</div>')
    return '\n'.join(parts)


def _tables(sheet, test_set, entry):
    bootstrap, parts, doubts, beside = sheet['bootstrap'], [], {}, False
    for title, explanation, rows in sections(sheet, test_set):
        models = list(dict.fromkeys(model for row in rows for model in row['published']))
        beside = beside or bool(models)
        heads = ''.join(f'<th>{model}, published</th>' for model in models)
        interval = f'<th>{bootstrap["level"]:.0%} interval</th>' if bootstrap['resamples'] else ''
        lines = []
        for row in rows:
            cells = f'<th>{escape(row["name"].replace("_", " "))}</th><td>{number(row)}</td>'
            cells += f'<td>{bounds(row)}</td>' if interval else ''
            for model in models:
                one = row['published'].get(model)
                doubt = one['note'].partition('; ')[2] if one else ''
                mark = doubts.setdefault(doubt, len(doubts) + 1) if doubt else ''
                mark = f'<sup>{mark}</sup>' if mark else ''
                cells += f'<td>{one["figure"]}{mark}</td>' if one else '<td></td>'
            lines.append(f'<tr>{cells}</tr>')
        parts.append(
            f'<div><p class="caption"><b>{title}</b>: {escape(explanation)}</p><div class="table"><table>'
            f'<tr><th></th><th>here</th>{interval}{heads}</tr>{"".join(lines)}</table></div></div>'
        )
    notes = '<p class="small">'
    if beside:
        notes += f'Published: {sheet["published"]["source"]}. {sheet["published"]["note"]} '
    notes += ' '.join(f'<sup>{mark}</sup> {doubt}.' for doubt, mark in doubts.items())
    if bootstrap['resamples']:
        notes += (
            f' An interval says how far a score may move with other {entry["resampled"]} of the same kind: '
            f'{bootstrap["resamples"]} bootstrap resamples of {entry["resampled"]}, seed {bootstrap["seed"]}.'
        )
    return f'<div class="tables">{"".join(parts)}</div>{notes}</p>'


def _spread(rows, several):
    """Dice of single images, and against the size of the lesion."""
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
    figures = ''
    if alarms:
        figures = _figure(
            charts.histogram(alarms, 'false alarm, % of the image', unit, x_range=(0, max(1, max(alarms)))),
            f'{len(alarms)} {unit} without any lesion: which share of the image is marked all the same. 0 is right.',
        )
    if not dice:
        return figures
    return (
        figures
        + _figure(
            charts.histogram(dice, 'Dice of one image', unit),
            f'How many {unit} reach which Dice (hard, cut at one half). Bars at the left are lesions that were missed.',
        )
        + _figure(
            charts.scatter(size, dice, 'lesion, % of the image', 'Dice'),
            'Each dot is one lesion mask: its size against how well it was found. Small lesions are at the left.',
        )
    )


def _curves(curves, calibration, suffix):
    recall, precision = curves['reference/recall'], curves['reference/precision']
    if not max(recall):
        return ''  # without a lesion there is nothing to find, and these figures say nothing
    thresholds = curves['pranet/thresholds']
    series = [(name, thresholds, curves[f'pranet/{key}']) for name, key in _THRESHOLD_CURVES.items()]
    pixels, probability, inside = np.array(calibration)
    kept = pixels > 0
    said, seen = probability[kept] / pixels[kept], inside[kept] / pixels[kept]
    error = np.abs(probability - inside).sum() / pixels.sum()
    unit = {'x_range': (0, 1), 'y_range': (0, 1)}
    return (
        _figure(
            charts.line_chart([('precision', recall, precision)], 'recall', 'precision', **unit),
            f'Precision (how much of what is marked is lesion) against recall (how much of the lesion is marked) as '
            f'the threshold falls{suffix}. Means over images, each map stretched to its full range (reference).',
        )
        + _figure(
            charts.line_chart(series, 'threshold', 'score', **unit),
            f'What a threshold does to the scores (pranet){suffix}: a flat Dice says that the choice hardly matters.',
        )
        + _figure(
            charts.line_chart(
                [('seen', said, seen)], 'probability said', 'share that is lesion', diagonal=True, **unit
            ),
            f'Calibration{suffix}: of the pixels said to be lesion with 70 %, are 70 % lesion? On the dashed line, '
            f'yes; below it the model is too sure. Mean distance (expected calibration error): {error:.4f}.',
        )
    )


def _case(folder, case):
    """One case as four pictures."""
    with Image.open(folder / 'scores' / 'cases' / case['file']) as strip:
        strip = strip.convert('RGB')
        width = strip.width // len(PANELS)
        pictures = []
        for number_of_panel, panel in enumerate(PANELS):
            buffer = io.BytesIO()
            left = number_of_panel * width
            strip.crop((left, 0, left + width, strip.height)).save(buffer, 'JPEG', quality=80)
            data = base64.b64encode(buffer.getvalue()).decode()
            alt = escape(f'{panel} of {case["name"]}')
            pictures.append(f'<span><img alt="{alt}" src="data:image/jpeg;base64,{data}"><i>{panel}</i></span>')
    caption = escape(case['name']) + (f': Dice {case["Dice"]:.3f}' if case['kind'] != 'lesion_free' else '')
    return f'<figure class="case"><div>{"".join(pictures)}</div><figcaption>{caption}</figcaption></figure>'


def _config(sheet):
    """The config, what departs from the released recipe first."""
    config = sheet.get('config')
    if not config:
        return ''
    changed = ''.join(
        f'<tr><th>{escape(key)}</th><td>{escape(str(before))}</td><td>{escape(str(now))}</td></tr>'
        for key, before, now in departures(config)
    )
    table = f'<div class="table"><table><tr><th>key</th><th>released</th><th>here</th></tr>{changed}</table></div>'
    whole = ''.join(f'{escape(key)} = {escape(str(value))}\n' for key, value in flatten(config).items())
    return (
        '<h2>Settings</h2><p>Different from the released recipe of the polyp sets:'
        f'{"</p>" + table if changed else " none</p>"}'
        f'<details><summary>All settings</summary><pre>{whole}</pre></details>'
    )


def _figure(chart, caption):
    return f'<figure>{chart}<figcaption>{escape(caption)}</figcaption></figure>'


_THRESHOLD_CURVES = {'Dice': 'Dice', 'IoU': 'IoU', 'sensitivity': 'Sen', 'specificity': 'Spe'}
_COLOURS = (
    'In the fourth picture <b class="hit">white</b> is lesion found, <b class="missed">orange</b> lesion missed, '
    '<b class="false">blue</b> false alarm.'
)
