"""The curves of a run: the scalars of its `metrics.jsonl` against training steps."""

from collections.abc import Collection
from pathlib import Path

from markupsafe import Markup

from m2snet_jax.report import charts
from m2snet_jax.report.rendering import render
from m2snet_jax.storage import read_json_lines


class NotebookHtml(str):
    """HTML that a notebook displays."""

    def _repr_html_(self) -> str:
        return str(self)


def training_charts(workdir: str | Path, names: Collection[str] | None = None) -> list[tuple[str, Markup]]:
    """Returns (name, chart) of scalars against steps.

    Args:
        workdir: the folder of a run.
        names: of scalars, as in `metrics.jsonl`; by default the loss and all that is measured on validation images.
            One with fewer than two values is left out.
    """
    points: dict[str, list[tuple[float, float]]] = {}
    for row in read_json_lines(Path(workdir) / 'metrics.jsonl'):
        for key, value in row.items():
            wanted = key == 'loss' or 'validation' in key if names is None else key in names
            if wanted and isinstance(value, (int, float)):
                points.setdefault(key, []).append((row['step'], value))
    return [
        (key, charts.line_chart([(key, [step for step, _ in one], [value for _, value in one])], 'step', key))
        for key, one in points.items()
        if len(one) > 1
    ]


def curves(workdir: str | Path, names: Collection[str] | None = None) -> NotebookHtml:
    """Draws scalars of a run against steps, for a notebook: `curves('runs/quickstart')` as the last line of a cell.

    Args:
        workdir, names: as in `training_charts`; names may be any of a row, e.g. 'structure' or 'images_per_second'.

    Returns:
        HTML that a notebook displays.
    """
    return NotebookHtml(render('curves.html.j2', drawn=[chart for _, chart in training_charts(workdir, names)]))
