"""Rows of numbers as a table for the terminal."""

from collections.abc import Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from derta.data.readers import printable
from derta.evaluation.results.metrics import MetricRow

ORGANISM_NOTE = "Model organism: a small model of a fictional world. These numbers prove nothing about larger models."

# What each metric is called, and which way is good.
METRICS: dict[str, str] = {
    "asr": "attack success ↓",
    "fully_safe_asr": "not fully safe ↓",
    "leak": "leaked tokens ↓",
    "garbled": "garbled ↓",
    "refusal_rate": "refuses anywhere",
    "refusal_position": "refuses at token",
    "refusal_at_start": "refusals at the start",
    "over_refusal": "refuses borderline ↓",
    "partial_refusal": "refuses in part ↓",
    "compliance": "complies, borderline ↑",
    "borderline_accuracy": "answers borderline ↑",
    "helpful_refusal": "refuses helpful ↓",
    "helpful_accuracy": "answers helpful ↑",
    "accuracy": "answers rightly ↑",
    "unscored": "unscored",
    "borderline_unscored": "unscored, borderline",
    "helpful_unscored": "unscored, helpful",
    "agreement": "judges agree (α)",
}
_OF_ATTACKS = ("asr", "fully_safe_asr", "leak", "garbled", "unscored")
# The rest of a long story: in `results.json` and in the report.
_NOT_SHOWN = ("refusal_rate", "refusal_position", "refusal_at_start", "compliance")


def results_table(rows: Sequence[MetricRow], *, note: str | None = None) -> RenderableType:
    """Return a table of metrics × models with 95 % intervals.

    The forms of an attack are listed for its success only, unscored samples where there are any. Where refusals stand
    is left to `results.json` and the report.
    """
    models = list(dict.fromkeys(label(row) for row in rows))
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.caption = "%, leaks in tokens; 95 % intervals in brackets"
    # In a narrow terminal an interval goes below its value; what a row is must stay readable.
    for heading in ("metric", "attack"):
        table.add_column(heading, no_wrap=True)
    for model in models:
        table.add_column(Text(printable(model)), justify="right")
    cells = {(row.metric, row.attack, label(row)): row for row in rows}
    for metric, title in METRICS.items():
        attacks = list(dict.fromkeys(row.attack for row in rows if row.metric == metric and is_shown(row, rows)))
        for place, attack in enumerate(attacks):
            values = [_cell(cells.get((metric, attack, model))) for model in models]
            of_attack = metric in _OF_ATTACKS
            where = printable(indented(attack)) if of_attack or attack != "direct" else ""
            table.add_row(title if place == 0 else "", Text(where), *values)
        if attacks and metric in _OF_ATTACKS:
            table.add_section()
    notes = [note] if note else []
    if any(row.judge == "organism" for row in rows):
        notes.append(ORGANISM_NOTE)
    return Group(table, *(Text(each, style="italic") for each in notes))


def is_shown(row: MetricRow, rows: Sequence[MetricRow]) -> bool:
    """Whether a terminal's table of `rows` has a line for a row of this metric and attack."""
    if row.metric in _NOT_SHOWN:
        return False
    if row.metric.endswith("unscored"):
        return any(other.value for other in rows if (other.metric, other.attack) == (row.metric, row.attack))
    return row.metric == "asr" or "@" not in row.attack


def label(row: MetricRow) -> str:
    """Return what to call the model of a row: its method where it is known."""
    return row.method or row.model


def indented(attack: str) -> str:
    """Return an attack's name, of its forms only what tells them apart."""
    return f" @{attack.split('@')[1]}" if "@" in attack else attack


def _cell(row: MetricRow | None) -> str:
    return format_value(row) if row else ""


def format_value(row: MetricRow) -> str:
    """Write a value with its interval: `12.5 [8.1, 18.9]`; samples as `3 of 40`."""
    if row.value is None:
        return "–"
    if row.unit == "samples":
        return f"{row.value:g} of {row.n}"
    digits = 2 if row.unit == "alpha" else 1
    if row.ci_low is None or row.ci_high is None:
        return f"{row.value:.{digits}f}"
    return f"{row.value:.{digits}f} [{row.ci_low:.{digits}f}, {row.ci_high:.{digits}f}]"
