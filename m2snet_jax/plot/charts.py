"""Charts as SVG text for a page: few marks, sizes that a phone can show.

Series are told apart by colour and dash alike, `s0`, `s1`, … in `STYLE`, which the page includes beside the colours.
"""

import math
from html import escape

import numpy as np

WIDTH, HEIGHT = 440, 300
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 12, 44
LIGHT = """--ink:#1b1b1f;--soft:#5b5f66;--page:#fdfdfc;--card:#f1f2f3;--line:#d3d6da;
--s0:#0072b2;--s1:#b84a00;--s2:#007a5a;--s3:#8a4570;"""
DARK = """--ink:#e8e8ea;--soft:#a9adb5;--page:#16171a;--card:#212327;--line:#3b3f46;
--s0:#56b4e9;--s1:#e69f00;--s2:#3fc79a;--s3:#e09cc6;"""
STYLE = """
svg{display:block;width:100%;height:auto}
svg text{font-size:13px;fill:var(--soft)}
.grid{stroke:var(--line);stroke-width:1}.guide{stroke:var(--soft);stroke-width:1.5;stroke-dasharray:3 4}
.line{fill:none;stroke-width:2.5;stroke-linejoin:round}
.s0{stroke:var(--s0)}.s1{stroke:var(--s1);stroke-dasharray:9 4}.s2{stroke:var(--s2);stroke-dasharray:3 3}
.s3{stroke:var(--s3);stroke-dasharray:12 3 3 3}
.dot{fill:var(--s0);fill-opacity:.45;stroke:none}.bar{fill:var(--s0)}
.legend{display:flex;flex-wrap:wrap;gap:.2rem 1rem;margin:.2rem 0 0;font-size:.88rem}
.legend span{display:flex;align-items:center;gap:.4rem}.key{width:28px}
"""
POINTS = 400  # more of them are not seen in a line


def line_chart(series, x_label, y_label, *, x_range=None, y_range=None, diagonal=False, marks=()):
    """Lines.

    Args:
        series: [(name, x [N], y [N])]; points that are not finite are left out. Lines of one name look alike.
        x_label, y_label: what the axes show.
        x_range, y_range: (low, high), by default what the data span.
        diagonal: also draw the line from corner to corner, which a perfect curve would follow.
        marks: [(x, text)] vertical lines.
    """
    series = [(name, *_finite(x, y)) for name, x, y in series]
    x_range = x_range or _span(np.concatenate([x for _, x, _ in series]))
    y_range = y_range or _span(np.concatenate([y for _, _, y in series]))
    place = _Frame(x_range, y_range)
    parts = [place.axes(x_label, y_label)]
    if diagonal:
        parts.append(f'<path class="guide" d="{place.path(x_range, y_range)}"/>')
    for x, text in marks:
        across = place.x(x)
        parts.append(f'<path class="guide" d="M{across:.1f} {TOP}V{HEIGHT - BOTTOM}"/>')
        parts.append(f'<text x="{across + 4:.1f}" y="{HEIGHT - BOTTOM - 6}">{escape(text)}</text>')
    names = list(dict.fromkeys(name for name, _, _ in series))
    for name, x, y in series:
        index = names.index(name)
        step = max(1, math.ceil(len(x) / POINTS))
        dots = ''.join(f'<circle class="s{index} dot" cx="{place.x(a):.1f}" cy="{place.y(b):.1f}" r="3"/>' for a, b in
                       zip(x, y, strict=True)) if len(x) <= 12 else ''  # fmt: skip
        parts.append(f'<path class="s{index} line" d="{place.path(x[::step], y[::step])}"/>{dots}')
    return _svg(parts, y_label, x_label) + _legend(names)


def histogram(values, x_label, y_label, *, bins=20, x_range=(0.0, 1.0)):
    """Bars: how many of `values` [N] fall into each of equal bins; a line at their mean."""
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


def intervals(rows, x_label):
    """Dots with bars on both sides, one a row, and marks at 0; as tall as the rows need.

    Args:
        rows: [(name, figure, low, high)]; low and high are None where there is no interval.
        x_label: what the axis shows.
    """
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


def scatter(x, y, x_label, y_label, *, y_range=(0.0, 1.0)):
    """Dots, x on a logarithmic axis; non-positive x are left out."""
    x, y = _finite(x, y)
    x, y = np.log10(x[x > 0]), y[x > 0]
    place = _Frame((math.floor(x.min()), max(math.floor(x.min()) + 1, math.ceil(x.max()))), y_range)
    parts = [place.axes(x_label, y_label, powers=True)]
    parts += [
        f'<circle class="s0 dot" cx="{place.x(a):.1f}" cy="{place.y(b):.1f}" r="3.5"/>'
        for a, b in zip(x, y, strict=True)
    ]
    return _svg(parts, y_label, x_label)


class _Frame:
    """From values to places in the drawing."""

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
    """About five round numbers within a range."""
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
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{title}">{"".join(parts)}</svg>'


def _legend(names):
    if len(names) < 2:
        return ''
    items = ''.join(
        f'<span><svg class="key" viewBox="0 0 28 8"><path class="s{k} line" d="M0 4H28"/></svg>{escape(name)}</span>'
        for k, name in enumerate(names)
    )
    return f'<p class="legend">{items}</p>'
