"""A comparison with the released program in words: a table for each model."""

from m2snet_jax.parity.marks import ALONG, ALONG_NOTE, DTYPES

VERDICTS = {True: 'kept', False: 'MISSED', None: ''}


def text(report):
    """Returns what `python -m m2snet_jax parity` prints of a report."""
    lines = [f'goldens: {report["golden"]}; {report["device"]}']
    if report['weights'] is not None:
        lines.append(f'weights: {report["weights"]}')
    for name, rows in report['models'].items():
        table = [['', *dtypes_of(rows), 'mark', '']]
        table += [[row['what'], *figures(row), ' '.join([verdict(row), *culprit(row)])] for row in rows]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines += ['', f'{name}: largest relative errors']
        lines += [
            '  '.join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip() for cells in table
        ]
    return '\n'.join([*lines, '', *remarks(report)])


def dtypes_of(rows):
    """Returns the dtypes in which rows were run."""
    return [dtype for dtype in DTYPES if dtype in rows[0]]


def figures(row):
    """Returns the errors of a row and its mark as text."""
    mark = '' if row['mark'] is None else f'{row["mark"]:.1e}'
    return [*(f'{row[dtype]:.1e}' for dtype in dtypes_of([row])), mark]


def verdict(row):
    """Returns whether the mark of a row was kept."""
    return VERDICTS[row['passed']]


def culprit(row):
    """Returns [PyTorch's name, in brackets, of the tensor that missed the mark of a row], [] where there is none."""
    return [f'({row["worst"]})'] if row['passed'] is False and row['worst'] else []


def remarks(report):
    """Returns the sentences below the tables, the last of which counts the marks."""
    rows = [row for rows in report['models'].values() for row in rows]
    judged = [row['passed'] for row in rows if row['passed'] is not None]
    count = f'{sum(judged)} of {len(judged)} marks kept' if judged else 'without float64 there are no marks'
    return [*([ALONG_NOTE] if any((row['mark'] or 0) > ALONG for row in rows) else []), count]
