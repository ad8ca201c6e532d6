"""Score tables for people: which scores of a sheet are shown, in which order, and what is published beside them."""

import json

from m2snet_jax.config import FREE_KEYS, flatten, load_config

SECTIONS = {
    'reference': ('reference', 'the released program of M²SNet', 'Dice IoU wFm Sm Em MAE maxF avgF BER Acc'),
    'pranet': (
        'pranet',
        'the MATLAB toolbox of PraNet, in which most polyp tables are printed',
        'meanDic maxDic meanIoU maxIoU wFm Sm meanEm maxEm MAE meanSen maxSen meanSpe maxSpe',
    ),
    'hard': (
        'hard',
        'map cut at one half, mean over images with a lesion; HD95 and ASSD, in pixels, are infinite once a lesion is '
        'missed, …_found leaves the missed ones out',
        'Dice IoU precision recall specificity accuracy HD95 ASSD MAE HD95_found ASSD_found count missed',
    ),
    'pooled': (
        'pooled',
        'the same, from pixels counted over all images',
        'Dice IoU precision recall specificity accuracy',
    ),
    'lesion_free': (
        'lesion-free',
        'images without a lesion: how many, share with any false alarm, its mean share of the image',
        'count false_positive_share false_positive_area',
    ),
}
TALLIES = ('count', 'missed')


def sections(sheet, test_set):
    """Yields (title, explanation, rows) of one test set of a `summary.json`; its figures may be text: 'nan', 'inf'.

    Rows are dicts of name, figure (float), low and high (floats or None) and published, {model: {figure, note}}.
    """
    beside = sheet.get('published', {}).get('test_sets', {}).get(test_set, {})
    for section, (title, explanation, names) in SECTIONS.items():
        if not float(sheet['scores'].get(f'{test_set}/{section}/count', 1)):
            continue  # of images with a lesion, or of those without, there are none
        if section in ('reference', 'pranet') and not float(sheet['scores'].get(f'{test_set}/hard/count', 1)):
            explanation += '; without any lesion most of it says nothing'
        rows = []
        for name in names.split():
            key = f'{test_set}/{section}/{name}'
            if key in sheet['scores']:
                low, high = (float(bound) for bound in sheet['intervals'].get(key, ('nan', 'nan')))
                figures = {'figure': float(sheet['scores'][key]), 'low': low, 'high': high}
                rows.append({'name': name, **figures, 'published': beside.get(f'{section}/{name}', {})})
        if rows:
            yield title, explanation, rows


def test_sets(sheet):
    """Returns [(name of a test set, its entry in the sheet)]."""
    return list(sheet.get('test_sets', {}).items())


def number(row, key='figure'):
    """Returns a figure of a row as text."""
    value = row[key]
    if value != value:
        return 'undefined'
    if value == float('inf'):
        return '∞'
    return f'{value:.0f}' if row['name'] in TALLIES else f'{value:.4f}' if abs(value) < 10 else f'{value:.2f}'


def bounds(row):
    """Returns the interval of a row as text, '' without one."""
    return '' if row['low'] != row['low'] else f'{number(row, "low")} … {number(row, "high")}'


def departures(config):
    """Returns [(key, released value, value here)] of a recorded config that shape the result and are not released."""
    released = flatten(json.loads(json.dumps(load_config('kvasir').to_dict())))
    ours = {'data.name', 'data.fold', 'data.folds', 'seed', 'data.seed'}  # which data and which draw, not how
    return [
        (key, released.get(key), value)
        for key, value in flatten(config).items()
        if value != released.get(key) and key not in ours and not key.startswith(FREE_KEYS)
    ]


def text(sheet):
    """Returns the tables of a `summary.json` as text, one a test set."""
    lines = []
    for test_set, entry in test_sets(sheet):
        bootstrap = sheet['bootstrap']
        interval = f'{bootstrap["level"]:.0%} intervals from {bootstrap["resamples"]} resamples of {entry["resampled"]}'
        lines += [f'{test_set}: {entry["images"]} images' + (f'; {interval}' if bootstrap['resamples'] else '')]
        models, notes = False, {}
        for title, explanation, rows in sections(sheet, test_set):
            lines += ['', f'  {title}: {explanation}']
            for row in rows:
                marks = []
                for model, one in row['published'].items():
                    doubt = one['note'].partition('; ')[2]
                    mark = notes.setdefault(doubt, f'({len(notes) + 1})') if doubt else ''
                    marks.append(f'{model} {one["figure"]}{mark}')
                    models = True
                line = f'    {row["name"]:20} {number(row):>10}  {bounds(row):20} {"  ".join(marks)}'
                lines.append(line.rstrip())
        if models:
            lines += ['', f'  Published beside: {sheet["published"]["source"]}.', f'  {sheet["published"]["note"]}']
            lines += [f'  {mark} {doubt}' for doubt, mark in notes.items()]
            changed = [f'{key} {before} → {now}' for key, before, now in departures(sheet.get('config') or {})]
            if changed:
                lines.append(f'  Not the released recipe: {", ".join(changed)}.')
        lines.append('')
    return '\n'.join([*lines, *(f'warning: {one}' for one in sheet['warnings'])]).rstrip()
