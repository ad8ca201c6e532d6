"""A comparison with the released program as a web page, in the style of a run's report."""

from html import escape

from m2snet_jax.parity.table import culprit, dtypes_of, figures, remarks, verdict
from m2snet_jax.report.style import PAGE, STYLE

# (what the names of rows have in them, title of their table, what it says); a row belongs to the last that fits
_GROUPS = (
    ('', 'Maps and losses', 'of the whole network, in evaluation mode and in one training step'),
    (' after ', 'Updates', 'the recipe run for a few steps from the same weights'),
    ('gradients, ', 'Gradients', 'of the total loss, the worst parameter of each part of the network'),
    ('running statistics, ', 'Running statistics', 'of the batch norms after one step, the worst of each part'),
)
_MORE_STYLE = 'tr>:first-child{white-space:normal;overflow-wrap:anywhere}.missed>*{font-weight:bold}'


def page(report):
    """Returns a report as one HTML file that needs nothing else."""
    *notes, count = remarks(report)
    facts = {
        'result': count,
        'goldens': report['golden'],
        'weights': report['weights'] or 'seeded, rebuilt from the names of their tensors',
        'device': report['device'],
        'versions': ', '.join(f'{name} {version}' for name, version in report['versions'].items()),
    }
    lines = ''.join(f'<dt>{key}</dt><dd>{escape(value)}</dd>' for key, value in facts.items())
    missed = '' if report['passed'] else f'<p class="warning">Not the same as the released program: {count}.</p>'
    body = (
        f'<h1>Parity with the released program</h1>{missed}<p>The same weights and images went through the networks '
        'here and through the authors’ PyTorch program, which ran in float64. The tables show the largest relative '
        'difference between the two. In float64 it has to stay below the mark; in the other precisions it tells how '
        f'much of a result is rounding.</p><dl>{lines}</dl>'
    )
    models = (_model(name, rows) for name, rows in report['models'].items())
    notes = ''.join(f'<p class="small">{escape(note)}</p>' for note in notes)
    return PAGE.format(title='Parity', style=STYLE + _MORE_STYLE, body='\n'.join([body, *models, notes]))


def _model(name, rows):
    groups = {key: [] for key, _, _ in _GROUPS}
    for row in rows:
        groups[next(key for key in reversed(groups) if key in row['what'])].append(row)
    tables = (_table(title, about, key, groups[key]) for key, title, about in _GROUPS if groups[key])
    return f'<h2>{escape(name)}</h2><div class="tables">{"".join(tables)}</div>'


def _table(title, about, prefix, rows):
    head = ''.join(f'<th>{cell}</th>' for cell in ['', *dtypes_of(rows), 'mark', ''])
    lines = []
    for row in rows:
        cells = ''.join(f'<td>{escape(cell)}</td>' for cell in [*figures(row), verdict(row)])
        missed = ' class="missed"' if row['passed'] is False else ''
        what = ' '.join([row['what'].removeprefix(prefix), *culprit(row)])
        lines.append(f'<tr{missed}><th>{escape(what)}</th>{cells}</tr>')
    return (
        f'<div><p class="caption"><b>{title}</b>: {about}</p><div class="table"><table><tr>{head}</tr>{"".join(lines)}'
        '</table></div></div>'
    )
