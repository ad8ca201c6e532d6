"""A comparison with the released program as text: a table for each model."""

from typing import Any

from m2snet_jax.parity.tolerances import DTYPES, UPDATES_NOTE, UPDATES_TOLERANCE

VERDICTS = {True: 'pass', False: 'FAIL', None: ''}


def text(report: dict[str, Any]) -> str:
    """Returns what `python -m m2snet_jax parity` prints of a report."""
    lines = [f'goldens: {report["golden"]}; {report["device"]}']
    if report['weights'] is not None:
        lines.append(f'weights: {report["weights"]}')
    for name, rows in report['models'].items():
        table = [['', *dtypes_of(rows), 'tolerance', '']]
        table += [[row['what'], *figures(row), ' '.join([verdict(row), *worst_tensor(row)])] for row in rows]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines += ['', f'{name}: largest relative errors']
        lines += [
            '  '.join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip() for cells in table
        ]
    return '\n'.join([*lines, '', *remarks(report)])


def dtypes_of(rows: list[dict[str, Any]]) -> list[str]:
    """Returns the dtypes in which rows were run."""
    return [dtype for dtype in DTYPES if dtype in rows[0]]


def figures(row: dict[str, Any]) -> list[str]:
    """Returns the errors of a row and its tolerance as text."""
    tolerance = '' if row['tolerance'] is None else f'{row["tolerance"]:.1e}'
    return [*(f'{row[dtype]:.1e}' for dtype in dtypes_of([row])), tolerance]


def verdict(row: dict[str, Any]) -> str:
    """Returns 'pass' or 'FAIL', '' for a row without a tolerance."""
    return VERDICTS[row['passed']]


def worst_tensor(row: dict[str, Any]) -> list[str]:
    """Returns [PyTorch's name, in brackets, of the worst tensor] of a row that failed, [] for any other."""
    return [f'({row["worst"]})'] if row['passed'] is False and row['worst'] else []


def remarks(report: dict[str, Any]) -> list[str]:
    """Returns the sentences below the tables; the last counts the rows within tolerance."""
    rows = [row for rows in report['models'].values() for row in rows]
    judged = [row['passed'] for row in rows if row['passed'] is not None]
    count = f'{sum(judged)} of {len(judged)} within tolerance' if judged else 'without float64 there is no tolerance'
    return [*([UPDATES_NOTE] if any((row['tolerance'] or 0) > UPDATES_TOLERANCE for row in rows) else []), count]
