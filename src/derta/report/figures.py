"""Figures as inline SVG that takes its colours from the page, so that it is legible on light and on dark; and as files.

Every figure shows values with their 95 % intervals, one colour and one marker for each model throughout.
"""

import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure

from derta.evaluation.results.metrics import MetricRow

MARKERS = "osD^vPX*"
GLYPHS = "●■◆▲▼✚✖★"

# matplotlib writes colours, not CSS: stand-ins, one for each variable of the page.
_INK, _MUTED, _GRID = "#010101", "#020202", "#030303"
_SERIES = tuple(f"#0101{10 + place}" for place in range(len(MARKERS)))
_CSS = {
    _INK: "var(--ink)",
    _MUTED: "var(--muted)",
    _GRID: "var(--line)",
    **{colour: f"var(--series-{place + 1})" for place, colour in enumerate(_SERIES)},
}
_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 11,
    "text.color": _INK,
    "axes.labelcolor": _MUTED,
    "axes.edgecolor": _GRID,
    "xtick.color": _MUTED,
    "ytick.color": _INK,
    "grid.color": _GRID,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def shape_of(place: int) -> int:
    """Return which marker the model at a place has: with its colour it is no other's, among as many as 64 models."""
    return (place + place // len(_SERIES)) % len(MARKERS)


Series = Sequence[Sequence[MetricRow | None]]
"""For each model its rows, in the order of the labels; `None` where it has none."""


def intervals(title: str, labels: Sequence[str], series: Series, xlabel: str, *, width: float = 6.4) -> Markup:
    """Draw percentages: one line for each label and on it each model's value with its interval. `width` in inches."""
    gap = 0.62 / max(len(series), 1)
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": title}):
        figure = Figure(figsize=(width, 0.75 + len(labels) * (0.30 + 0.17 * len(series))), layout="constrained")
        axes: Any = figure.subplots()
        for place, rows in enumerate(series):
            points = [
                (line + (place - (len(series) - 1) / 2) * gap, row)
                for line, row in enumerate(rows)
                if row is not None and row.value is not None
            ]
            _draw(axes, place, [(row, y) for y, row in points])
        axes.set_yticks(range(len(labels)), labels)
        axes.set_ylim(len(labels) - 0.5, -0.5)
        for line in range(len(labels) - 1):
            axes.axhline(line + 0.5, color=_GRID, linewidth=0.7)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_xlim(-2, 102)
        axes.set_xlabel(xlabel)
        axes.grid(axis="x", linewidth=0.7)
        axes.set_axisbelow(True)
        return _inline(figure, title)


def _draw(axes: Any, place: int, points: Sequence[tuple[MetricRow, float]]) -> None:
    colour, marker = _SERIES[place % len(_SERIES)], MARKERS[shape_of(place)]
    for row, y in points:
        low = row.value if row.ci_low is None else row.ci_low
        high = row.value if row.ci_high is None else row.ci_high
        axes.plot([low, high], [y, y], color=colour, linewidth=2.4, solid_capstyle="round", alpha=0.55)
        axes.plot([row.value], [y], marker=marker, color=colour, markersize=7, linestyle="none", clip_on=False)


def curve(title: str, depths: Sequence[int], series: Series, xlabel: str, ylabel: str) -> Markup:
    """Draw each model's values over depths as a line in a band, the interval."""
    with matplotlib.rc_context({**_STYLE, "ytick.color": _MUTED, "svg.hashsalt": title}):
        figure = Figure(figsize=(6.4, 3.6), layout="constrained")
        axes: Any = figure.subplots()
        for place, rows in enumerate(series):
            known = [(d, row) for d, row in zip(depths, rows, strict=True) if row is not None and row.value is not None]
            if not known:
                continue
            colour, marker = _SERIES[place % len(_SERIES)], MARKERS[shape_of(place)]
            at = [depth for depth, _ in known]
            bounded = [(d, row) for d, row in known if row.ci_low is not None and row.ci_high is not None]
            axes.fill_between(
                [d for d, _ in bounded],
                [row.ci_low for _, row in bounded],
                [row.ci_high for _, row in bounded],
                color=colour,
                alpha=0.16,
                linewidth=0,
            )
            axes.plot(at, [row.value for _, row in known], color=colour, marker=marker, markersize=6, clip_on=False)
        axes.set_xticks(list(depths))
        axes.set_ylim(-2, 102)
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
        axes.grid(axis="y", linewidth=0.7)
        axes.set_axisbelow(True)
        return _inline(figure, title)


def svg_file(figure: Figure) -> str:
    """Return a figure as the text of an SVG file on white, the same for the same figure."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "derta"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None}, facecolor="white")
    return buffer.getvalue()


def _inline(figure: Figure, title: str) -> Markup:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Title": title})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    for colour, variable in _CSS.items():
        svg = svg.replace(colour, variable)
    # The page sets the size and the font; the figure keeps its proportions.
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = svg.replace("<svg", '<svg role="img"', 1).replace("font: 11px sans-serif", "font-size: 11px")
    return Markup(svg)
