"""How a run went: the rows of its `metrics.jsonl`, and their curves."""

import json
from pathlib import Path

from m2snet_jax.plot import charts


class Drawing(str):
    """HTML text that a notebook shows as what it draws."""

    def _repr_html_(self):
        return str(self)


def read_metrics(workdir):
    """Returns the rows of a run's `metrics.jsonl`, dicts with `step`, an unfinished last line left out."""
    path = Path(workdir) / 'metrics.jsonl'
    rows = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def training_charts(workdir, names=None):
    """Returns [(name, chart as HTML)] of scalars against steps.

    Args:
        workdir: the folder of a run.
        names: of scalars, as in `metrics.jsonl`; by default the loss and all that is measured on validation images.
            One with fewer than two values is left out.
    """
    points = {}
    for row in read_metrics(workdir):
        for key, value in row.items():
            wanted = key == 'loss' or 'validation' in key if names is None else key in names
            if wanted and isinstance(value, (int, float)):
                points.setdefault(key, []).append((row['step'], value))
    return [
        (key, charts.line_chart([(key, *zip(*one, strict=True))], 'step', key))
        for key, one in points.items()
        if len(one) > 1
    ]


def curves(workdir, names=None):
    """Draws scalars of a run against steps, for a notebook: `curves('runs/quickstart')` as a cell's last line.

    Args:
        workdir, names: as in `training_charts`; names may be any of a row, as 'structure' or 'images_per_second'.

    Returns:
        HTML text that draws itself in a notebook.
    """
    drawn = ''.join(f'<figure>{chart}</figure>' for _, chart in training_charts(workdir, names))
    return Drawing(
        f'<style>.m2snet-curves{{{charts.LIGHT}{charts.STYLE}{_LAYOUT}}}</style>'
        f'<div class="m2snet-curves">{drawn or "nothing to draw yet"}</div>'
    )


_LAYOUT = (
    'color:var(--ink);font:14px system-ui,sans-serif;display:flex;flex-wrap:wrap;gap:12px;'
    'figure{margin:0;flex:1 1 330px;max-width:560px;background:var(--card);border-radius:8px;padding:10px}'
)
