"""The page of a comparison with the released program."""

from typing import Any

from m2snet_jax.parity.parity_text import dtypes_of, figures, remarks, verdict, worst_tensor
from m2snet_jax.report.rendering import render

# (what the names of rows contain, title of their table, what it shows); a row belongs to the last that fits
_TABLES = (
    ('', 'Maps and losses', 'of the whole network, in evaluation mode and in one training step'),
    (' after ', 'Updates', 'a few training steps of the released recipe from the same weights'),
    ('gradients, ', 'Gradients', 'of the total loss, the worst parameter of each part of the network'),
    ('running statistics, ', 'Running statistics', 'of the batch norms after one step, the worst of each part'),
)


def page(report: dict[str, Any]) -> str:
    """Returns a report of `python -m m2snet_jax parity` as one HTML file that needs nothing else."""
    *notes, count = remarks(report)
    return render(
        'parity.html.j2',
        title='Parity with the released program',
        count=count,
        passed=report['passed'],
        about={
            'goldens': report['golden'],
            'weights': report['weights'] or 'seeded, rebuilt from the names of their tensors',
            'device': report['device'],
            'versions': ', '.join(f'{name} {version}' for name, version in report['versions'].items()),
        },
        models=[{'name': name, 'tables': _tables(rows)} for name, rows in report['models'].items()],
        notes=notes,
    )


def _tables(rows):
    groups = {key: [] for key, _, _ in _TABLES}
    for row in rows:
        groups[next(key for key in reversed(groups) if key in row['what'])].append(row)
    return [
        {
            'title': title,
            'about': about,
            'dtypes': dtypes_of(groups[key]),
            'rows': [_row(row, key) for row in groups[key]],
        }
        for key, title, about in _TABLES
        if groups[key]
    ]


def _row(row, prefix):
    return {
        'what': ' '.join([row['what'].removeprefix(prefix), *worst_tensor(row)]),
        'cells': [*figures(row), verdict(row)],
        'failed': row['passed'] is False,
    }
