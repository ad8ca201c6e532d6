"""Charts as SVG, with sizes that a phone can show.

Series differ in colour and in dash: classes `s0`, `s1`, … of `STYLE`, which a page includes together with `LIGHT` or
`DARK`. All functions return markup, which templates do not escape.
"""

import math
from collections.abc import Iterable, Sequence
from html import escape

import numpy as np
from jaxtyping import Float
from markupsafe import Markup

WIDTH, HEIGHT = 440, 300
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 12, 44
LIGHT = Markup("""--ink:#1b1b1f;--soft:#5b5f66;--page:#fdfdfc;--card:#f1f2f3;--line:#d3d6da;
--s0:#0072b2;--s1:#b84a00;--s2:#007a5a;--s3:#8a4570;""")
DARK = Markup("""--ink:#e8e8ea;--soft:#a9adb5;--page:#16171a;--card:#212327;--line:#3b3f46;
--s0:#56b4e9;--s1:#e69f00;--s2:#3fc79a;--s3:#e09cc6;""")
STYLE = Markup("""
svg{display:block;width:100%;height:auto}
svg text{font-size:13px;fill:var(--soft)}
.grid{stroke:var(--line);stroke-width:1}.guide{stroke:var(--soft);stroke-width:1.5;stroke-dasharray:3 4}
.line{fill:none;stroke-width:2.5;stroke-linejoin:round}
.s0{stroke:var(--s0)}.s1{stroke:var(--s1);stroke-dasharray:9 4}.s2{stroke:var(--s2);stroke-dasharray:3 3}
.s3{stroke:var(--s3);stroke-dasharray:12 3 3 3}
.dot{fill:var(--s0);fill-opacity:.45;stroke:none}.bar{fill:var(--s0)}
.legend{display:flex;flex-wrap:wrap;gap:.2rem 1rem;margin:.2rem 0 0;font-size:.88rem}
.legend span{display:flex;align-items:center;gap:.4rem}.key{width:28px}
""")
POINTS = 400  # of a line at most: more cannot be seen
Values = Sequence[float] | Float[np.ndarray, 'points']


def line_chart(
    series: Sequence[tuple[str, Values, Values]],
    x_label: str,
    y_label: str,
    *,
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    diagonal: bool = False,
) -> Markup:
    """Returns a chart of lines.

    Args:
        series: (name, x, y) of each line; points that are not finite are left out. Lines of one name look the same.
        x_label, y_label: what the axes show.
        x_range, y_range: (low, high), by default the range of the data.
        diagonal: also draw the line from corner to corner, which a perfect curve would follow.
    """
    series = [(name, *_finite(x, y)) for name, x, y in series]
    x_range = x_range or _span(np.concatenate([x for _, x, _ in series]))
    y_range = y_range or _span(np.concatenate([y for _, _, y in series]))
    place = _Frame(x_range, y_range)
    parts = [place.axes(x_label, y_label)]
    if diagonal:
        parts.append(f'<path class="guide" d="{place.path(x_range, y_range)}"/>')
    names = list(dict.fromkeys(name for name, _, _ in series))
    for name, x, y in series:
        index = names.index(name)
        step = max(1, math.ceil(len(x) / POINTS))
        dots = ''.join(f'<circle class="s{index} dot" cx="{place.x(a):.1f}" cy="{place.y(b):.1f}" r="3"/>' for a, b in
                       zip(x, y, strict=True)) if len(x) <= 12 else ''  # fmt: skip
        parts.append(f'<path class="s{index} line" d="{place.path(x[::step], y[::step])}"/>{dots}')
    return _svg(parts, y_label, x_label) + _legend(names)


def histogram(
    values: Values, x_label: str, y_label: str, *, bins: int = 20, x_range: tuple[float, float] = (0.0, 1.0)
) -> Markup:
    """Returns a chart of the number of values in each of equal bins, with a line at their mean."""
    values = np.asarray(values, np.float64)
    counts, edges = np.histogram(values, bins, x_range)
    place = _Frame(x_range, (0, max(1, counts.max())))
    parts = [place.axes(x_label, y_label)]
    for count, low, high in zip(counts, edges[:-1], edges[1:], strict=True):
        x, y = place.x(low) + 1, place.y(count)
        width = place.x(high) - place.x(low) - 2
        parts.append(f'<rect class="bar" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{place.y(0) - y:.1f}"/>')
    if len(values):
        across = place.x(values.mean())
        parts.append(f'<path class="guide" d="M{across:.1f} {TOP}V{HEIGHT - BOTTOM}"/>')
        side = 'end' if across > WIDTH / 2 else 'start'
        shift = -4 if side == 'end' else 4
        parts.append(
            f'<text x="{across + shift:.1f}" y="{TOP + 12}" text-anchor="{side}">mean {values.mean():.3f}</text>'
        )
    return _svg(parts, y_label, x_label)


def intervals(rows: Iterable[tuple[str, float, float | None, float | None]], x_label: str) -> Markup:
    """Returns a chart of dots with their intervals, one a row, and a line at 0; its height depends on the rows.

    Args:
        rows: (name, figure, low, high) of each; low and high are None where there is no interval.
        x_label: what the axis shows.
    """
    rows = list(rows)
    values = [value for row in rows for value in row[1:] if value is not None] + [0.0]
    margin = 0.05 * (max(values) - min(values)) or 0.01
    place = _Frame((min(values) - margin, max(values) + margin), (0, 1))
    foot = TOP + 44 * len(rows)
    parts = []
    for value in _ticks(*place.x_range):
        parts.append(f'<text x="{place.x(value):.1f}" y="{foot + 17}" text-anchor="middle">{value:g}</text>')
    for number, (name, figure, low, high) in enumerate(rows):
        y = TOP + 44 * number
        parts.append(f'<text x="{LEFT}" y="{y + 13}">{escape(name)}</text>')
        parts.append(f'<path class="guide" d="M{place.x(0):.1f} {y + 17}V{y + 36}"/>')
        if low is not None:
            parts.append(f'<path class="s0 line" d="M{place.x(low):.1f} {y + 26}H{place.x(high):.1f}"/>')
        parts.append(f'<circle class="bar" cx="{place.x(figure):.1f}" cy="{y + 26}" r="5"/>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{foot + 36}" text-anchor="middle">{escape(x_label)}</text>')
    return _svg(parts, x_label, 'runs compared', height=foot + 44)


def scatter(x: Values, y: Values, x_label: str, y_label: str, *, y_range: tuple[float, float] = (0.0, 1.0)) -> Markup:
    """Returns a chart of dots with a logarithmic x axis; points whose x is not positive are left out."""
    x, y = _finite(x, y)
    x, y = np.log10(x[x > 0]), y[x > 0]
    place = _Frame((math.floor(x.min()), max(math.floor(x.min()) + 1, math.ceil(x.max()))), y_range)
    parts = [place.axes(x_label, y_label, powers=True)]
    parts += [
        f'<circle class="s0 dot" cx="{place.x(a):.1f}" cy="{place.y(b):.1f}" r="3.5"/>'
        for a, b in zip(x, y, strict=True)
    ]
    return _svg(parts, y_label, x_label)


def difference_chart(x: Values, y: Values, levels: Sequence[float], x_label: str, y_label: str) -> Markup:
    """Returns a chart of dots with a line across at each of `levels`, e.g. the mean and the limits of agreement."""
    x, y = _finite(x, y)
    low, high = _span(np.concatenate([y, np.asarray(levels, float), [0.0]]))
    margin = 0.05 * (high - low)
    place = _Frame(_span(x), (low - margin, high + margin))
    parts = [place.axes(x_label, y_label)]
    parts += [f'<path class="guide" d="M{LEFT} {place.y(level):.1f}H{WIDTH - RIGHT}"/>' for level in levels]
    parts += [
        f'<circle class="s0 dot" cx="{place.x(a):.1f}" cy="{place.y(b):.1f}" r="3.5"/>'
        for a, b in zip(x, y, strict=True)
    ]
    return _svg(parts, y_label, x_label)


class _Frame:
    """Maps values to coordinates of the drawing."""

    def __init__(self, x_range, y_range):
        self.x_range, self.y_range = x_range, y_range

    def x(self, value):
        low, high = self.x_range
        return LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def y(self, value):
        low, high = self.y_range
        return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    def path(self, x, y):
        return 'M' + 'L'.join(f'{self.x(a):.1f} {self.y(b):.1f}' for a, b in zip(x, y, strict=True))

    def axes(self, x_label, y_label, powers=False):
        parts = []
        for value in range(self.x_range[0], self.x_range[1] + 1) if powers else _ticks(*self.x_range):
            label = f'{10.0**value:.4g}' if powers else f'{value:g}'
            parts.append(
                f'<text x="{self.x(value):.1f}" y="{HEIGHT - BOTTOM + 17}" text-anchor="middle">{label}</text>'
            )
        for value in _ticks(*self.y_range):
            across = f'{self.y(value):.1f}'
            parts.append(f'<path class="grid" d="M{LEFT} {across}H{WIDTH - RIGHT}"/>')
            parts.append(f'<text x="{LEFT - 6}" y="{self.y(value) + 4:.1f}" text-anchor="end">{value:g}</text>')
        middle = (TOP + HEIGHT - BOTTOM) / 2
        parts.append(
            f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x_label)}</text>'
        )
        turned = f'text-anchor="middle" transform="rotate(-90 14 {middle})"'
        parts.append(f'<text x="14" y="{middle}" {turned}>{escape(y_label)}</text>')
        return ''.join(parts)


def _ticks(low, high):
    """Returns about five round numbers within a range."""
    raw = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    return [round(k * step, 10) for k in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _finite(x, y):
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    kept = np.isfinite(x) & np.isfinite(y)
    return x[kept], y[kept]


def _span(values):
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _svg(parts, *labels, height=HEIGHT):
    title = escape(' against '.join(labels))
    return Markup(f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{title}">{"".join(parts)}</svg>')


def _legend(names):
    if len(names) < 2:
        return Markup()
    items = ''.join(
        f'<span><svg class="key" viewBox="0 0 28 8"><path class="s{k} line" d="M0 4H28"/></svg>{escape(name)}</span>'
        for k, name in enumerate(names)
    )
    return Markup(f'<p class="legend">{items}</p>')
