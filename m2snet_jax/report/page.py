"""The page of a run: one HTML file that needs nothing else, with scores, curves and cases.

It is made from Scores, the pictures in `scores/cases` and `metrics.jsonl`, so that it can be made again.
"""

import re
from pathlib import Path

import numpy as np
from PIL import Image

from m2snet_jax.config import flatten
from m2snet_jax.evaluation import table
from m2snet_jax.evaluation.published import legend
from m2snet_jax.evaluation.scores import Scores
from m2snet_jax.report.figures import (
    calibration_figures,
    curve_figures,
    doubt_figures,
    spread_figures,
    training_figures,
)
from m2snet_jax.report.rendering import picture_url, render
from m2snet_jax.storage import write

CASES = {
    'worst': ('Worst cases', 'The images with a lesion on which the scores are lowest, the worst first.'),
    'best': ('Best cases', 'The images with a lesion on which the scores are highest, the best first.'),
    'lesion_free': ('False alarms', 'Images without a lesion and with a false alarm, the largest area first.'),
}
PANELS = ('image', 'mask', 'map', 'errors')


def run_name(folder: str | Path) -> str:
    """Returns the name of a folder for a title; that of a run of a study with its variant, as in `m2snet/seed0`."""
    folder = Path(folder).resolve()
    in_study = re.fullmatch(r'(fold\d+-)?seed\d+', folder.name)
    return f'{folder.parent.name}/{folder.name}' if in_study else folder.name


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
        title=f'Scores of {run_name(folder)}',
        subject=_subject(summary),
        headlines=[_headline(test_set) for test_set in test_sets],
        level=f'{bootstrap["level"]:.0%}' if bootstrap and bootstrap['resamples'] else '',
        published_note=_published_note(summary, test_sets),
        warnings=[*summary['warnings'], *_missing_maps(summary), *_missing_pictures(test_sets)],
        test_sets=test_sets,
        folds={'heads': ('fold', 'images', 'models', *table.FOLD_COLUMNS), 'rows': table.fold_rows(summary)},
        calibrations=calibration_figures(summary),
        training=training_figures(folder),
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


def _missing_pictures(test_sets):
    for one in test_sets:
        names = [case['name'] for kind in one['cases'] for case in kind['cases'] if not case['panels']]
        if names:
            yield f'{one["name"]}: scores/cases lacks the pictures of {len(names)} cases: {", ".join(names)}'


def _test_set(folder, scores, name, entry):
    """Returns tables, figures and cases of one test set."""
    summary, details = scores.summary, scores.details[name]
    several = len(details['classes']) > 1
    figures = list(spread_figures([row for row in scores.per_image if row['set'] == name], several))
    figures += doubt_figures(details.get('doubt', {}))
    for number, (curves, calibration) in enumerate(zip(details['classes'], details['calibration'], strict=True), 1):
        figures += curve_figures(curves, calibration, f', class {number}' if several else '')
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
        about = f'Map cut at one half; mean over {_counted(rows, "hard", "with")}'
        scores.append({**dice, 'name': 'Dice (hard)', 'about': about})
        if released := rows.get(('released', 'Dice')):
            about = 'By the script of the released program, like the published figures'
            scores.append({**released, 'name': 'Dice (released)', 'about': about})
    elif alarms := rows.get(('lesion-free', 'false positive share')):
        about = f'Share of {_counted(rows, "lesion-free", "without")}'
        scores.append({**alarms, 'name': 'False alarms', 'about': about})
    return {'test_set': f'{test_set["name"]}: {test_set["images"]} images', 'scores': scores}


def _counted(rows, title, kind):
    """Returns of which images a figure is; the number of several classes is not one."""
    if (title, 'count') in rows:
        return f'{rows[title, "count"]["figure"]} images {kind} a lesion'
    return f'the images {kind} each class, then over classes'


def _published_note(summary, test_sets):
    """Returns the sources of the published figures in the headlines; '' where there are none."""
    beside = {one['name']: table.published_beside(summary, one['name']).get('released/Dice', {}) for one in test_sets}
    lines = legend(beside)
    if lines and summary.get('config') and table.departures(summary['config']):
        lines.append('This model was not trained by the released recipe, see Settings.')
    return ' '.join(lines)


def _cases(folder, cases):
    """Yields the kinds of cases that there are, each with its cases."""
    for kind, (title, about) in CASES.items():
        chosen = [case for case in cases if case['kind'] == kind]
        if chosen:
            yield {'title': title, 'about': about, 'cases': [_case(folder, case) for case in chosen]}


def _case(folder, case):
    """Returns one case as four pictures, or without any where its file is missing, as in a copy of the sheets alone."""
    path, panels = folder / 'scores' / 'cases' / case['file'], []
    if path.exists():
        with Image.open(path) as file:
            panels = np.split(np.asarray(file.convert('RGB')), len(PANELS), axis=1)
    return {
        'name': case['name'],
        'score': '' if case['kind'] == 'lesion_free' else f': Dice {case["Dice"]:.3f}',
        'panels': [(panel, picture_url(pixels)) for panel, pixels in zip(PANELS, panels, strict=bool(panels))],
    }
