"""Score tables: which scores of a sheet are shown, in which order, and the published figures beside them."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from m2snet_jax.config import FREE_KEYS, flatten, load_config
from m2snet_jax.evaluation.published import Published, legend

SECTIONS = {
    'released': (
        'the released program of M²SNet, to compare with its published scores; Dice is of the map stretched to 0 … 1, '
        'IoU of its pixels above one half, so Dice may be below IoU',
        'Dice IoU wFm Sm Em MAE maxF avgF BER Acc',
    ),
    'pranet': (
        'the MATLAB toolbox of PraNet, which computed most published tables of polyps',
        'meanDic maxDic meanIoU maxIoU wFm Sm meanEm maxEm MAE meanSen maxSen meanSpe maxSpe',
    ),
    'hard': (
        'map cut at one half, mean over images with a lesion; HD95 and ASSD, in pixels, are infinite if the map of '
        'such an image is empty, …_found omits these images',
        'Dice IoU precision recall specificity accuracy HD95 ASSD MAE HD95_found ASSD_found count missed',
    ),
    'pooled': ('the same, from pixels counted over all images', 'Dice IoU precision recall specificity accuracy'),
    'lesion_free': (
        'images without a lesion: their number, share with a false alarm, mean share of the image that is marked',
        'count false_positive_share false_positive_area',
    ),
}
TALLIES = ('count', 'missed')


def sections(sheet: Mapping[str, Any], test_set: str) -> Iterator[tuple[str, str, list[dict[str, Any]]]]:
    """Yields (title, explanation, rows) of one test set of a `summary.json`; its figures may be text: 'nan', 'inf'.

    Rows are dicts of name, figure, low and high (floats, NaN without an interval) and published, {model: entry}.
    """
    beside = published_beside(sheet, test_set)
    for section, (explanation, names) in SECTIONS.items():
        if not _has_images(sheet, test_set, section):
            continue  # no images with a lesion, or none without
        if section in ('released', 'pranet') and not _has_images(sheet, test_set, 'hard'):
            explanation += '; without any lesion most of these scores are not meaningful'
        rows = []
        for name in names.split():
            key = f'{test_set}/{section}/{name}'
            if key in sheet['scores']:
                low, high = (float(bound) for bound in sheet['intervals'].get(key, ('nan', 'nan')))
                figures = {'figure': float(sheet['scores'][key]), 'low': low, 'high': high}
                rows.append({'name': name, **figures, 'published': beside.get(f'{section}/{name}', {})})
        if rows:
            yield section.replace('_', '-'), explanation, rows


def _has_images(sheet, test_set, section):
    """Returns whether a section is over any image, of any class; a section without a count is."""
    names = [name for name in sheet['scores'] if name.startswith(f'{test_set}/') and name.endswith(f'/{section}/count')]
    return not names or any(float(sheet['scores'][name]) for name in names)


def published_beside(sheet: Mapping[str, Any], test_set: str) -> Published:
    """Returns the published figures of a test set that a sheet holds."""
    return sheet.get('published', {}).get(test_set, {})


def test_sets(sheet: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Returns [(name of a test set, its entry in the sheet)]."""
    return list(sheet.get('test_sets', {}).items())


def number(row: Mapping[str, Any], key: str = 'figure') -> str:
    """Returns a figure of a row as text."""
    value = row[key]
    if value != value:
        return 'undefined'
    if value == float('inf'):
        return '∞'
    return f'{value:.0f}' if row['name'] in TALLIES else f'{value:.4f}' if abs(value) < 10 else f'{value:.2f}'


def bounds(row: Mapping[str, Any]) -> str:
    """Returns the interval of a row as text, '' without one."""
    return '' if row['low'] != row['low'] else f'{number(row, "low")} … {number(row, "high")}'


def departures(config: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """Returns (key, released value, value) of the keys that shape the result and differ from the released recipe."""
    released = flatten(json.loads(json.dumps(load_config('kvasir').to_dict())))
    ours = {'data.name', 'data.fold', 'data.folds', 'seed', 'data.seed'}  # which data and which draw, not how
    return [
        (key, released.get(key), value)
        for key, value in flatten(config).items()
        if value != released.get(key) and key not in ours and not key.startswith(FREE_KEYS)
    ]


DOUBTS = {
    'entropy': 'mean entropy around the predicted lesion',
    'pairwise_dice': 'mean pairwise Dice of the averaged maps',
}
FOLD_COLUMNS = ('hard/Dice', 'hard/IoU', 'pooled/Dice', 'released/Dice')


def prediction_text(sheet: Mapping[str, Any]) -> str:
    """Returns how the maps of a sheet were made, if not by one model alone; '' else."""
    found = sheet.get('prediction', {})
    parts = [f'mean of {found["models"]} models'] if 'models' in found else []
    if 'sizes' in found:
        parts.append(f'run at {" and ".join(map(str, found["sizes"]))} pixels and averaged at the size of each image')
    parts += ['mean over the image and its three flips'] if 'tta' in found else []
    if 'temperatures' in found:
        parts.append(f'temperatures {", ".join(f"{one:.3f}" for one in found["temperatures"])}')
    return '; '.join(parts)


def doubt_rows(sheet: Mapping[str, Any], test_set: str) -> list[tuple[str, list[str]]]:
    """Returns (doubt, [area, ideal, random, its interval]) as text of each doubt of a test set."""
    rows = []
    for name, one in sheet.get('doubt', {}).get(test_set, {}).items():
        figures = [f'{float(one[key]):.4f}' for key in ('area', 'ideal', 'random')]
        rows.append((DOUBTS[name], [*figures, f'{float(one["low"]):.4f} … {float(one["high"]):.4f}']))
    return rows


def fold_rows(sheet: Mapping[str, Any]) -> list[list[str]]:
    """Returns the cells of the table by fold of a cross-validated sheet: fold, images, models and a few scores."""
    return [
        [fold, str(one['images']), str(one['models']), *(f'{float(one["scores"][key]):.4f}' for key in FOLD_COLUMNS)]
        for fold, one in sheet.get('cross_validation', {}).get('folds', {}).items()
    ]


def _doubt_lines(sheet, test_set):
    """Yields the lines on risk against coverage."""
    rows = doubt_rows(sheet, test_set)
    if rows:
        yield from (
            '',
            '  risk against coverage: mean of 1 − Dice of the images of least doubt; its area, less is better',
        )
    for name, (area, ideal, random, interval) in rows:
        yield f'    {name:40} {area}  ideal {ideal}  random {random} ({interval})'


def _fold_lines(sheet):
    """Yields the table by fold."""
    rows = fold_rows(sheet)
    if rows:
        heads = ('fold', 'images', 'models', *FOLD_COLUMNS)
        yield from ('by fold, each scored by the models that were not trained on it:', _columns(heads))
    yield from map(_columns, rows)
    if rows:
        yield ''


def _columns(cells):
    return '  ' + ''.join(f'{cell:>15}' for cell in cells)


def text(sheet: Mapping[str, Any]) -> str:
    """Returns the tables of a `summary.json` as text, one a test set."""
    lines = [f'maps: {prediction_text(sheet)}', ''] if 'prediction' in sheet else []
    for test_set, entry in test_sets(sheet):
        bootstrap = sheet['bootstrap']
        interval = f'{bootstrap["level"]:.0%} intervals from {bootstrap["resamples"]} resamples of {entry["resampled"]}'
        lines += [f'{test_set}: {entry["images"]} images' + (f'; {interval}' if bootstrap['resamples'] else '')]
        for title, explanation, rows in sections(sheet, test_set):
            lines += ['', f'  {title}: {explanation}']
            for row in rows:
                beside = [f'{model} {one["figure"]} [{one["sources"]}]' for model, one in row['published'].items()]
                line = f'    {row["name"]:20} {number(row):>10}  {bounds(row):20} {"  ".join(beside)}'
                lines.append(line.rstrip())
        if beside := published_beside(sheet, test_set):
            lines += ['', *(f'  {line}' for line in legend(beside))]
            changed = [f'{key} {before} → {now}' for key, before, now in departures(sheet.get('config') or {})]
            if changed:
                lines.append(f'  Not the released recipe: {", ".join(changed)}.')
        lines += _doubt_lines(sheet, test_set)
        lines.append('')
    lines += _fold_lines(sheet)
    return '\n'.join([*lines, *(f'warning: {one}' for one in sheet['warnings'])]).rstrip()
