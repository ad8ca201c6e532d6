"""The page and the JSON file of a study: means, differences with intervals, losses, published figures beside."""

import json
import os
from html import escape
from pathlib import Path

import numpy as np

from m2snet_jax.errors import InputError
from m2snet_jax.evaluation.study import SCORES
from m2snet_jax.evaluation.study_text import figure_of, label_of, time_of
from m2snet_jax.plot import charts
from m2snet_jax.report.style import PAGE, STYLE


def write_study(table, workdir):
    """Writes `study.json` and `study.html` of what `study_table` returned into the folder of a study.

    Raises:
        InputError: they cannot be written.
    """
    workdir = Path(workdir)
    body = '\n'.join([_head(table), _variants(table, workdir), *_test_sets(table), _losses(table), _how(table)])
    page = PAGE.format(title=escape(f'Study {table["study"]}'), style=STYLE, body=body)
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        for name, text in (('study.json', json.dumps(table, indent=1) + '\n'), ('study.html', page)):
            temporary = workdir / f'.{name}'
            temporary.write_text(text, encoding='utf-8')
            os.replace(temporary, workdir / name)
    except OSError as error:
        raise InputError(f'{workdir}: cannot be written ({error.strerror}); name another --workdir') from None


def _head(table):
    changes = ', '.join(f'{key} = {value}' for key, value in table['changes'].items())
    return (
        f'<h1>Study {escape(table["study"])}</h1><p>{escape(table["about"])}</p><dl>'
        f'<dt>config</dt><dd>{escape(table["config"])}</dd>'
        + (f'<dt>changed in all</dt><dd>{escape(changes)}</dd>' if changes else '')
        + f'<dt>runs finished</dt><dd>{table["runs"]["finished"]} of {table["runs"]["all"]}</dd></dl>'
    )


def _variants(table, workdir):
    """What was trained, and where its pages are."""
    rows = []
    for one in table['variants']:
        links = []
        for name, folder in zip(one['finished'], one['folders'], strict=True):
            target = escape(os.path.relpath(Path(folder) / 'report.html', workdir))
            links.append(f'<a href="{target}">{escape(name.partition(", ")[2])}</a>')
        changes = [f'{key} = {_short(value)}' for key, value in one['changes'].items()]
        changes += [f'weights of {one["weights_of"]}'] if one['weights_of'] else []
        changes += [f'the same as {", ".join(one["same_as"])}'] if one['same_as'] else []
        rows.append(
            f'<dt>{escape(one["name"])}</dt><dd>{escape(one["about"])}'
            + (f' <code>{escape("; ".join(changes))}</code>' if changes else '')
            + f'<br>{len(one["finished"])} of {one["runs"]} runs, {time_of(one) or "no time known"}'
            + (f': {"; ".join(links)}' if links else '')
            + '</dd>'
        )
    for one in table['references']:
        rows.append(
            f'<dt>{escape(one["name"])}</dt><dd>Scores of another program, given by files.<br>{one["runs"]} runs'
            f'{", " + time_of(one) if time_of(one) else ""}</dd>'
        )
    return f'<h2>What is compared</h2><dl>{"".join(rows)}</dl>'


def _test_sets(table):
    for test_set, entry in table['test_sets'].items():
        scores = [score for score in SCORES if any(score in row['scores'] for row in entry['rows'])]
        yield f'<h2>Test set {escape(test_set)}</h2>'
        head = ''.join(f'<th>{escape(score.replace("_", " "))}</th>' for score in scores)
        rows = [f'<tr>{_cells(row, scores)}</tr>' for row in entry['rows']]
        for model in dict.fromkeys(model for score in scores for model in entry['published'].get(score, ())):
            figures = (entry['published'].get(score, {}).get(model) for score in scores)
            cells = ''.join(f'<td>{escape(one["figure"]) if one else ""}</td>' for one in figures)
            rows.append(f'<tr><th>{escape(model)}, published</th>{cells}</tr>')
        yield (
            '<h3>Mean ± standard deviation over seeds</h3><div class="table"><table>'
            f'<tr><th></th>{head}</tr>{"".join(rows)}</table></div>'
        )
        for label in entry['not_compared']:
            yield f'<p class="warning">Not compared, for they test other images: {escape(label)}</p>'
        if entry['differences']:
            rows = ''.join(f'<tr>{_cells(row, scores)}</tr>' for row in entry['differences'])
            yield (
                '<h3>Difference on the same test images, with its 95 % interval for other seeds and other images</h3>'
                f'<div class="table"><table><tr><th></th>{head}</tr>{rows}</table></div>'
            )
            found = [
                (label_of(row), row['scores'][scores[0]]) for row in entry['differences'] if scores[0] in row['scores']
            ]
            dots = [(name, one['difference'], one['low'], one['high']) for name, one in found]
            chart = charts.intervals(dots, f'difference in {scores[0]}')
            yield (
                f'<div class="figures"><figure>{chart}<figcaption>Where a bar crosses the mark at 0, no difference '
                'is shown: it may be 0. Without a bar: fewer than two seeds.</figcaption></figure></div>'
            )


def _cells(row, scores):
    """The cells of a row, with all seeds of a mean, or both parts of an interval, told on hovering."""
    cells = f'<th>{escape(label_of(row))}</th>'
    for score in scores:
        one = row['scores'].get(score)
        hint = ''
        if one and 'mean' in one:
            hint = f'{one["images"]} images; ' + ', '.join(f'seed {s}: {v:.4f}' for s, v in one['seeds'].items())
        elif one:
            hint = f'seeds {one["seeds"][0]} and {one["seeds"][1]}, {"paired" if one["paired"] else "unpaired"}'
        cells += f'<td title="{escape(hint)}">{figure_of(one)}</td>'
    return cells


def _losses(table):
    """Loss of every epoch: each variant beside the first, or beside the reference that it is compared with."""
    curves, figures = table['losses'], []
    first = table['variants'][0]['name']
    for one in table['variants']:
        for other in dict.fromkeys((one['reference'], first)):
            pair = [name for name in (one['name'], other) if curves.get(name)]
            if len(pair) == 2 and one['name'] != other:
                series = [(name, *_points(losses)) for name in pair for losses in curves[name].values()]
                figures.append((series, f'{pair[0]} and {pair[1]}: mean loss of every epoch, a line a seed.'))
    figures = [(series, caption) for series, caption in figures if all(len(x) > 1 for _, x, _ in series)]
    if not figures:
        return ''
    drawn = ''.join(
        f'<figure>{charts.line_chart(series, "epoch", "loss")}<figcaption>{escape(caption)}</figcaption></figure>'
        for series, caption in figures
    )
    return f'<h2>Losses</h2><div class="figures">{drawn}</div>'


def _points(losses):
    return np.arange(1, len(losses) + 1), np.array(losses)


def _how(table):
    note = ''
    if any(entry['published'] for entry in table['test_sets'].values()):
        published = table['published']
        note = f' Published: {published["source"]}. {published["note"]}'
    return (
        '<h2>How to read it</h2><p class="small">A score of a seed is its mean over the test images. An interval joins '
        'two: between seeds by t, seed by seed where both variants ran at least three of the same seeds, else over all '
        'seeds of both (Welch); between images by the paired bootstrap. For the mean over other seeds and other images '
        'of the same kind, it holds the difference in 95 % of studies or somewhat more. Times are those of the '
        f"training steps, from each run's own log; what else ran on the machine is in them.{escape(note)}</p>"
    )


def _short(value):
    """A value of a change as text, of a path the file alone."""
    return Path(value).name if isinstance(value, str) and os.sep in value else value
