"""The table of a study as text: for a terminal, and its cells for a page."""

from typing import Any

from m2snet_jax.evaluation.published import legend
from m2snet_jax.study.claims import claim_lines

# The columns that fit into a terminal.
PRINTED = ('hard/Dice', 'hard/IoU', 'released/Dice', 'lesion_free/false_positive_share')
WIDTH = 30


def text(table: dict[str, Any]) -> str:
    """Returns what `study_table` returned as text."""
    runs, names = table['runs'], [one['name'] for one in (*table['variants'], *table['references'])]
    lines = [f'study {table["study"]}: {table["about"]}', f'{runs["finished"]} of {runs["all"]} runs finished', '']
    width = max(map(len, names)) + 2
    for one in (*table['variants'], *table['references']):
        count = f'{len(one["finished"])} of {one["runs"]}' if 'finished' in one else f'{one["runs"]} given'
        lines.append(f'{one["name"]:{width}}{count:9}{time_of(one):>16}  {one.get("about", "")}'.rstrip())
        if one.get('same_as'):
            lines.append(f'{"":{width}}the same as {", ".join(one["same_as"])}')
    for test_set, entry in table['test_sets'].items():
        scores = [score for score in PRINTED if any(score in row['scores'] for row in entry['rows'])]
        rows = {label_of(row): [figure_of(row['scores'].get(score)) for score in scores] for row in entry['rows']}
        for model in dict.fromkeys(model for score in scores for model in entry['published'].get(score, ())):
            found = [entry['published'].get(score, {}).get(model, {'figure': ''}) for score in scores]
            rows[f'{model}, published'] = [one['figure'] for one in found]
        differences = {
            label_of(row): [figure_of(row['scores'].get(score)) for score in scores] for row in entry['differences']
        }
        lines += ['', test_set, *_lines('mean ± deviation over seeds', scores, rows)]
        by_fold = {label_of(row): [figure_of(row['scores'].get(score)) for score in scores] for row in entry['folds']}
        lines += ['', *_lines('by fold', scores, by_fold)] if by_fold else []
        lines += ['', *_lines('difference, 95 % interval', scores, differences)] if differences else []
        lines += [f'not compared, because their test images differ: {one}' for one in entry['not_compared']]
    claims = claim_lines(table['claims'])
    lines += ['', *claims] if claims else []
    notes = dict.fromkeys(line for entry in table['test_sets'].values() for line in legend(entry['published']))
    lines += ['', *notes] if notes else []
    return '\n'.join(lines)


def _lines(title, heads, rows):
    """The lines of a table, {name: its cells}."""
    first = max(map(len, (title, *rows))) + 2
    return [
        (f'{name:{first}}' + ''.join(f'{cell:{WIDTH}}' for cell in cells)).rstrip()
        for name, cells in {title: heads, **rows}.items()
    ]


def label_of(row: dict[str, Any]) -> str:
    """Returns the name of a row; that of a difference is 'a − b'."""
    return f'{row["name"]} − {row["against"]}' if 'against' in row else row['name']


def figure_of(one: dict[str, Any] | None) -> str:
    """Returns a mean with its deviation, or a difference with its interval, as text."""
    if one is None:
        return ''
    if 'mean' in one:
        return f'{one["mean"]:.4f}' + ('' if one['deviation'] is None else f' ± {one["deviation"]:.4f}')
    few = '(too few seeds)' if one['by_seeds'] is None else '(one image)'
    bounds = few if one['low'] is None else f'({one["low"]:+.3f} … {one["high"]:+.3f})'
    return f'{one["difference"]:+.3f} {bounds}'


def time_of(one: dict[str, Any]) -> str:
    """Returns the mean training time of a run as text."""
    return '' if one['seconds'] is None else f'{one["seconds"] / 60:.1f} min a run'
