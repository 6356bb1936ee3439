"""Rows of numbers as a table for the terminal."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from derta.evaluation.metrics import Row

ORGANISM_NOTE = "Model organism: a small model of a fictional world. These numbers prove nothing about larger models."

# What each metric is called, which way is good, and where it stands.
METRICS: dict[str, str] = {
    "asr": "attack success ↓",
    "leak": "harmful tokens before refusal ↓",
    "garbled": "garbled responses ↓",
    "over_refusal": "refuses borderline prompts ↓",
    "borderline_accuracy": "answers borderline prompts ↑",
    "helpful_refusal": "refuses helpful prompts ↓",
    "helpful_accuracy": "answers helpful prompts ↑",
    "unscored": "unscored",
    "borderline_unscored": "unscored, borderline",
    "helpful_unscored": "unscored, helpful",
}


def results_table(rows: Sequence[Row], *, note: str | None = None) -> RenderableType:
    """Return a table of metrics × models with 95 % intervals; unscored samples are listed where there are any."""
    models = list(dict.fromkeys(label(row) for row in rows))
    table = Table("metric", "attack", title="95 % intervals in brackets")
    for model in models:
        table.add_column(Text(model), justify="right", no_wrap=True)
    cells = {(row.metric, row.attack, label(row)): row for row in rows}
    for metric, title in METRICS.items():
        attacks = [
            a for a in dict.fromkeys(row.attack for row in rows if row.metric == metric) if _shown(rows, metric, a)
        ]
        for place, attack in enumerate(attacks):
            values = [_cell(cells.get((metric, attack, model))) for model in models]
            harmless = metric not in ("asr", "leak", "garbled", "unscored")
            table.add_row(title if place == 0 else "", "" if harmless else _indented(attack), *values)
        if attacks:
            table.add_section()
    notes = [note] if note else []
    if any(row.judge == "organism" for row in rows):
        notes.append(ORGANISM_NOTE)
    return Group(table, *(Text(each, style="italic") for each in notes))


def label(row: Row) -> str:
    """Return what to call the model of a row: its method where it is known."""
    return row.method or row.model


def _shown(rows: Sequence[Row], metric: str, attack: str) -> bool:
    return not metric.endswith("unscored") or any(
        row.value for row in rows if (row.metric, row.attack) == (metric, attack)
    )


def _indented(attack: str) -> str:
    return f"  @{attack.split('@')[1]}" if "@" in attack else attack


def _cell(row: Row | None) -> str:
    return format_value(row) if row else ""


def format_value(row: Row) -> str:
    """Write a value with its interval: `12.5 [8.1, 18.9]`; samples as `3 of 40`."""
    if row.value is None:
        return "–"
    if row.unit == "samples":
        return f"{row.value:g} of {row.n}"
    if row.ci_low is None or row.ci_high is None:
        return f"{row.value:.1f}"
    return f"{row.value:.1f} [{row.ci_low:.1f}, {row.ci_high:.1f}]"
