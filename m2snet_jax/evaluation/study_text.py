"""The table of a study in words: for a terminal, and its cells for a page."""

# Columns that a terminal has room for.
PRINTED = ('hard/Dice', 'hard/IoU', 'reference/Dice', 'lesion_free/false_positive_share')
WIDTH = 30


def text(table):
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
        lines += ['', *_lines('difference, 95 % interval', scores, differences)] if differences else []
        lines += [f'not compared, for they test other images: {one}' for one in entry['not_compared']]
    if any(entry['published'] for entry in table['test_sets'].values()):
        lines += ['', f'Published: {table["published"]["source"]}. {table["published"]["note"]}']
    return '\n'.join(lines)


def _lines(title, heads, rows):
    """The lines of a table, {name: its cells}."""
    first = max(map(len, (title, *rows))) + 2
    return [
        (f'{name:{first}}' + ''.join(f'{cell:{WIDTH}}' for cell in cells)).rstrip()
        for name, cells in {title: heads, **rows}.items()
    ]


def label_of(row):
    """Returns the name of a row, of a difference as 'a − b'."""
    return f'{row["name"]} − {row["against"]}' if 'against' in row else row['name']


def figure_of(one):
    """Returns a mean with its deviation, or a difference with its interval, as text."""
    if one is None:
        return ''
    if 'mean' in one:
        return f'{one["mean"]:.4f}' + ('' if one['deviation'] is None else f' ± {one["deviation"]:.4f}')
    few = '(too few seeds)' if one['by_seeds'] is None else '(one image)'
    bounds = few if one['low'] is None else f'({one["low"]:+.3f} … {one["high"]:+.3f})'
    return f'{one["difference"]:+.3f} {bounds}'


def time_of(one):
    """Returns the mean training time of a run as text."""
    return '' if one['seconds'] is None else f'{one["seconds"] / 60:.1f} min a run'
