"""The page and the JSON file of a study: means, differences with intervals, losses, published figures beside."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from m2snet_jax.evaluation.published import legend
from m2snet_jax.report import charts
from m2snet_jax.report.rendering import render
from m2snet_jax.storage import write, write_json
from m2snet_jax.study.claims import claim_lines
from m2snet_jax.study.results import SCORES
from m2snet_jax.study.study_text import figure_of, label_of, time_of


def write_study(table: dict[str, Any], workdir: str | Path) -> None:
    """Writes `study.json` and `study.html` of what `study_table` returned into the folder of a study.

    Raises:
        InputError: they cannot be written.
    """
    workdir, test_sets = Path(workdir), table['test_sets']
    page = render(
        'study.html.j2',
        title=f'Study {table["study"]}',
        question=table['about'],
        headline=_headline(table),
        not_compared=[label for entry in test_sets.values() for label in entry['not_compared']],
        about={
            'config': table['config'],
            'changed in all variants': ', '.join(f'{key} = {value}' for key, value in table['changes'].items()),
            'runs finished': f'{table["runs"]["finished"]} of {table["runs"]["all"]}',
        },
        test_sets=[_test_set(name, entry) for name, entry in test_sets.items()],
        claims='\n'.join(claim_lines(table['claims'])),
        losses=_loss_figures(table),
        variants=[_variant(one, workdir) for one in table['variants']]
        + [_reference(one) for one in table['references']],
        notes=list(dict.fromkeys(line for entry in test_sets.values() for line in legend(entry['published']))),
    )
    write_json(workdir / 'study.json', table)
    write(workdir / 'study.html', page)


def _headline(table):
    """Returns the first difference in the first score, the mean of the first variant before there is one, or None."""
    for test_set, entry in table['test_sets'].items():
        score = _scores_of(entry)[0]
        for row in (*entry['differences'], *entry['rows']):
            if (one := row['scores'].get(score)) is not None:
                return {'label': f'{label_of(row)}, test set {test_set}', 'score': score, **_main_figure(one)}
    return None


def _main_figure(one):
    if 'mean' in one:
        seeds = f'Mean over {one["images"]} images and {len(one["seeds"])} seeds. No difference can be shown yet.'
        return {'figure': figure_of(one), 'interval': '', 'about': seeds}
    seeds = f'{one["images"]} images, {_seeds(one)}.'
    if one['low'] is None:
        return {'figure': f'{one["difference"]:+.3f}', 'interval': '', 'about': f'{seeds} Too few for an interval.'}
    shown = one['low'] > 0 or one['high'] < 0
    meaning = 'The interval excludes 0.' if shown else 'The interval includes 0: no difference is shown.'
    interval = f'{one["low"]:+.3f} … {one["high"]:+.3f}'
    return {'figure': f'{one["difference"]:+.3f}', 'interval': interval, 'about': f'{seeds} {meaning}'}


def _scores_of(entry):
    """Returns the names of the scores that any row of a test set has."""
    return [score for score in SCORES if any(score in row['scores'] for row in entry['rows'])]


def _test_set(name, entry):
    """Returns the tables of means and of differences, and the chart of differences."""
    scores = _scores_of(entry)
    means = [_row(row, scores) for row in entry['rows']]
    for model in dict.fromkeys(model for score in scores for model in entry['published'].get(score, ())):
        figures = (entry['published'].get(score, {}).get(model) for score in scores)
        cells = [{'text': one['figure'] if one else '', 'seeds': ''} for one in figures]
        means.append({'label': f'{model}, published', 'cells': cells})
    found = [(label_of(row), row['scores'][scores[0]]) for row in entry['differences'] if scores[0] in row['scores']]
    dots = [(label, one['difference'], one['low'], one['high']) for label, one in found]
    return {
        'name': name,
        'scores': scores,
        'means': means,
        'folds': [_row(row, scores) for row in entry['folds']],
        'differences': [_row(row, scores) for row in entry['differences']],
        'chart': (
            charts.intervals(dots, f'difference in {scores[0]}'),
            'An interval that includes 0 shows no difference. No interval: fewer than two seeds.',
        ),
    }


def _row(row, scores):
    """Returns a row of a table; hovering over a cell shows its seeds."""
    cells = []
    for score in scores:
        one = row['scores'].get(score)
        seeds = ''
        if one and 'seeds' not in one:
            seeds = f'{one["images"]} images'
        elif one and 'mean' in one:
            seeds = f'{one["images"]} images; ' + ', '.join(f'seed {s}: {v:.4f}' for s, v in one['seeds'].items())
        elif one:
            seeds = _seeds(one)
        cells.append({'text': figure_of(one), 'seeds': seeds})
    return {'label': label_of(row), 'cells': cells}


def _seeds(difference):
    first, second = difference['seeds']
    return f'{second} seeds against {first}, {"paired" if difference["paired"] else "unpaired"}'


def _variant(one, workdir):
    """Returns what is different in a variant, and links to the pages of its runs."""
    changes = [f'{key} = {_without_folder(value)}' for key, value in one['changes'].items()]
    changes += [f'weights of {one["weights_of"]}'] if one['weights_of'] else []
    changes += [f'the same as {", ".join(one["same_as"])}'] if one['same_as'] else []
    return {
        'name': one['name'],
        'about': one['about'],
        'changes': '; '.join(changes),
        'runs': f'{len(one["finished"])} of {one["runs"]} runs, {time_of(one) or "time unknown"}',
        'links': [
            (os.path.relpath(Path(folder) / 'report.html', workdir), name.partition(', ')[2])
            for name, folder in zip(one['finished'], one['folders'], strict=True)
        ],
    }


def _reference(one):
    """Returns the scores of another program as an entry beside the variants."""
    runs = ', '.join(filter(None, [f'{one["runs"]} runs', time_of(one)]))
    return {'name': one['name'], 'about': 'Scores of another program.', 'changes': '', 'runs': runs, 'links': []}


def _loss_figures(table):
    """Returns charts of the loss of every epoch: each variant with the first, and with its reference."""
    curves, figures = table['losses'], []
    first = table['variants'][0]['name']
    for one in table['variants']:
        for other in dict.fromkeys((one['reference'], first)):
            pair = [name for name in (one['name'], other) if curves.get(name)]
            series = [
                (name, np.arange(1.0, len(losses) + 1), np.array(losses))
                for name in pair
                for losses in curves[name].values()
            ]
            if len(pair) == 2 and one['name'] != other and all(len(x) > 1 for _, x, _ in series):
                chart = charts.line_chart(series, 'epoch', 'loss')
                figures.append((chart, f'{pair[0]} and {pair[1]}: mean loss of every epoch, one line per seed.'))
    return figures


def _without_folder(value):
    """Returns the name of a file alone for its path, any other value as it is."""
    return Path(value).name if isinstance(value, str) and os.sep in value else value
