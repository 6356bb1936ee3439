"""Rows of numbers as a table for the terminal."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Group, RenderableType
from rich.text import Text

from derta.evaluation.results.compare import Comparison
from derta.evaluation.results.detection import DetectionRow
from derta.evaluation.results.gate import Check, Decision
from derta.evaluation.results.metrics import MetricRow, ModelId
from derta.evaluation.results.outcomes import ANSWERS, WITHOUT_HARM
from derta.evaluation.results.paired import Difference
from derta.evaluation.results.store import Evaluation
from derta.redaction import printable
from derta.terminal import NumbersTable

ORGANISM_NOTE = "Model organism: a small model of a fictional world. These numbers prove nothing about larger models."

# What each metric is called, and which way is good.
METRICS: dict[str, str] = {
    "asr": "attack success ↓",
    "asr_corrected": "attack success, corrected ↓",
    "fully_safe_asr": "not fully safe ↓",
    "leak": "leaked tokens ↓",
    "half_life": "refusal half-life, tokens ↑",
    "garbled": "garbled ↓",
    "broken": "broken output ↓",
    "refusal_rate": "refuses anywhere",
    "refusal_position": "refuses at token",
    "refusal_at_start": "refusals at the start",
    "stopped": "stopped by the guard",
    "stopped_at": "stopped at token",
    "borderline_false_stops": "false stops, borderline ↓",
    "helpful_false_stops": "false stops, helpful ↓",
    "over_refusal": "refuses borderline ↓",
    "over_refusal_corrected": "refuses borderline, corrected ↓",
    "partial_refusal": "refuses in part ↓",
    "compliance": "complies, borderline ↑",
    "borderline_accuracy": "answers borderline ↑",
    "helpful_refusal": "refuses helpful ↓",
    "helpful_refusal_corrected": "refuses helpful, corrected ↓",
    "helpful_accuracy": "answers helpful ↑",
    "accuracy": "answers rightly ↑",
    "unscored": "unscored",
    "borderline_broken": "broken output, borderline ↓",
    "helpful_broken": "broken output, helpful ↓",
    "borderline_unscored": "unscored, borderline",
    "helpful_unscored": "unscored, helpful",
    "agreement": "judges agree (α)",
}
COMPLIANCE = "compliance under attack ↓"
"""What the share of unsafe responses is called where the judge finds compliance only: the rules don't judge harm."""
_OF_ATTACKS = ("asr", "asr_corrected", "fully_safe_asr", "leak", "half_life", "garbled", "broken", "unscored")
# The rest of a long story: in `results.json` and in the report.
_NOT_SHOWN = ("refusal_rate", "refusal_position", "refusal_at_start", "compliance")


def model_names(rows: Sequence[MetricRow]) -> dict[ModelId, str]:
    """Return what to call each model: its method if that tells the models apart, else as little of its name as does."""
    models = list(dict.fromkeys(row.model_id for row in rows))
    names: dict[ModelId, str] = {}
    for model in models:
        choices = [*([model.method] if model.method else []), Path(model.model).name or model.model, model.model]
        others = [other for other in models if other != model]
        taken = {name for other in others for name in (other.method, Path(other.model).name, other.model) if name}
        free = [choice for choice in choices if choice not in taken]
        names[model] = free[0] if free else f"{model.model} ({model.digest or model.seed})"
    return names


def results_table(rows: Sequence[MetricRow], *, note: str | None = None) -> RenderableType:
    """Return a table of metrics × models with 95 % intervals, a column for each model and judge.

    The variants of an attack are listed for its success only, broken and unscored samples where there are any. Where
    refusals stand is left to `results.json` and the report.
    """
    names, judges = model_names(rows), judges_of(rows)
    columns = [(model, judge) for model in names for judge in judges or [""]]
    table = NumbersTable()
    table.caption = "%, leaks in tokens; 95 % intervals in brackets"
    table.add_columns("metric", "attack")
    headings = (names[model] + (f", by {judge}" if len(judges) > 1 else "") for model, judge in columns)
    table.add_columns(*map(printable, headings), justify="right")
    cells: dict[tuple[str, str, ModelId, str], MetricRow] = {}
    for row in rows:
        judge = row.judge if row.judge in judges else next(iter(judges), "")
        key = (row.metric, row.label, row.model_id, judge)
        if cells.setdefault(key, row) != row:
            raise ValueError(f"two numbers for {row.metric} of {row.label}, {names[row.model_id]}")
    for metric in METRICS:
        labels = list(dict.fromkeys(row.label for row in rows if row.metric == metric and is_shown(row, rows)))
        for place, label in enumerate(labels):
            values = [_cell(cells.get((metric, label, *column))) for column in columns]
            of_attack = metric in _OF_ATTACKS
            where = printable(indented(label)) if of_attack or label != "direct" else ""
            table.add_row(title_of(metric, judges) if place == 0 else "", Text(where), *values)
        if labels and metric in _OF_ATTACKS:
            table.add_section()
    notes = [note] if note else []
    if any(row.judge == "organism" for row in rows):
        notes.append(ORGANISM_NOTE)
    if len(judges) > 1 and (rules := [judge for judge in judges if judge in WITHOUT_HARM]):
        notes.append(f"By {', '.join(rules)}: compliance under attack. Attack success needs a judge of harm.")
    return Group(table, *(Text(each, style="italic") for each in notes))


def title_of(metric: str, judges: Sequence[str]) -> str:
    """Return what a metric is called by these judges: without a judge of harm there is no attack success."""
    if metric == "asr" and judges and all(judge in WITHOUT_HARM for judge in judges):
        return COMPLIANCE
    return METRICS.get(metric, metric)


def judges_of(rows: Sequence[MetricRow]) -> list[str]:
    """Return the judges of safety, the one who decides first; those of tasks and of agreement stand in its column."""
    return list(dict.fromkeys(row.judge for row in rows if row.judge != ANSWERS and row.metric != "agreement"))


def is_shown(row: MetricRow, rows: Sequence[MetricRow]) -> bool:
    """Whether a terminal's table of `rows` has a line for a row of this metric and attack."""
    if row.metric in _NOT_SHOWN:
        return False
    if row.metric.endswith(("unscored", "broken")):
        return any(other.value for other in rows if (other.metric, other.label) == (row.metric, row.label))
    return row.metric in ("asr", "asr_corrected") or row.variant is None


def indented(label: str) -> str:
    """Return an attack's name, of its variants only what tells them apart."""
    return f" @{label.partition('@')[2]}" if "@" in label else label


def comparison_table(comparison: Comparison) -> RenderableType:
    """Return the metrics side by side, the differences with their intervals, and the notes."""
    sides = (comparison.first, comparison.second)
    table = NumbersTable()
    table.caption = "%, leaks in tokens; 95 % intervals in brackets; changes over shared attempts"
    several = len({row.judge for side in sides for row in side.rows}) > 1
    table.add_columns("metric", "attack", *(("judge",) if several else ()))
    table.add_columns("first", "second", "change", "p", justify="right")
    before = None
    for metric, attack, judge in _row_keys(comparison):
        cells = [_side(side, metric, attack, judge) for side in sides]
        found = _difference(comparison, metric, attack, judge)
        title = title_of(metric, [judge])
        names = (title if title != before else "", indented(attack))
        values = (
            *names,
            *((judge,) if several else ()),
            *cells,
            *((_format_difference(found), _p(found)) if found else ("", "")),
        )
        table.add_row(*(Text(printable(value)) for value in values))
        before = title
    places = [f"{name}: {side.directory}" for name, side in zip(("first", "second"), sides, strict=True)]
    return Group(table, *(Text(printable(line), style="italic") for line in (*places, *comparison.notes)))


def _row_keys(comparison: Comparison) -> list[tuple[str, str, str]]:
    order = list(METRICS)
    rows = [row for side in (comparison.first, comparison.second) for row in side.rows]
    keys = dict.fromkeys((row.metric, row.label, row.judge) for row in rows if is_shown(row, rows))
    return sorted(keys, key=lambda key: order.index(key[0]) if key[0] in order else len(order))


def _side(side: Evaluation, metric: str, attack: str, judge: str) -> str:
    rows = (row for row in side.rows if (row.metric, row.label, row.judge) == (metric, attack, judge))
    return next(map(format_value, rows), "")


def _difference(comparison: Comparison, metric: str, attack: str, judge: str) -> Difference | None:
    found = comparison.differences.get(judge, [])
    return next((each for each in found if (each.metric, each.attack) == (metric, attack)), None)


def _format_difference(difference: Difference) -> str:
    if difference.ci_low is None or difference.ci_high is None:
        return f"{difference.value:+.1f}"
    return f"{difference.value:+.1f} [{difference.ci_low:+.1f}, {difference.ci_high:+.1f}]"


def _p(difference: Difference) -> str:
    if difference.p_value is None:
        return ""
    return "<0.001" if difference.p_value < 0.001 else f"{difference.p_value:.3f}"


def gate_table(decision: Decision) -> NumbersTable:
    """Return what a gate looked at: what failed, or if nothing did the worst number under each limit."""
    failed = [check for check in decision.checks if not check.met]
    worst: dict[str, Check] = {}
    for check in decision.checks:
        held = worst.get(check.what)
        below = "≥" in check.what
        if held is None or (check.worst or 0) * (-1 if below else 1) > (held.worst or 0) * (-1 if below else 1):
            worst[check.what] = check
    table = NumbersTable()
    table.add_columns("limit", "attack", "value", "n", "judge", "why it fails" if failed else "worst bound")
    for check in failed or worst.values():
        row = check.row
        cells = (row.label, format_value(row), str(row.n), row.judge) if row else ("", "", "", "")
        last = check.reason if failed else "met" if check.worst is None else f"{check.worst:.1f}"
        table.add_row(*(Text(printable(cell)) for cell in (check.what, *cells, last)))
    return table


def _cell(row: MetricRow | None) -> str:
    return format_value(row) if row else ""


def format_value(row: MetricRow) -> str:
    """Write a value with its interval: `12.5 [8.1, 18.9]`; samples as `3 of 40`."""
    if row.value is None:
        return "–"
    if row.unit == "samples":
        return f"{row.value:g} of {row.n}"
    digits = 2 if row.unit == "alpha" else 1
    if row.metric == "half_life" and row.ci_low is not None and row.ci_high is None:
        return f"≥ {row.value:.0f} [{row.ci_low:.0f}, …]"
    if row.ci_low is None or row.ci_high is None:
        return f"{row.value:.{digits}f}"
    return f"{row.value:.{digits}f} [{row.ci_low:.{digits}f}, {row.ci_high:.{digits}f}]"


def detection_table(rows: Sequence[DetectionRow]) -> NumbersTable:
    """Return a detector's numbers: a line for each group and metric, a column for each depth in tokens."""
    depths = sorted({row.depth for row in rows if row.depth is not None})
    table = NumbersTable()
    table.caption = "AUROC by tokens written; detection, released and false stops in %; 95 % intervals in brackets"
    table.add_columns("detector", "answers", "metric", "n")
    table.add_columns("whole", *(f"@{depth}" for depth in depths), justify="right")
    lines: dict[tuple[str, str, str], dict[int | None, DetectionRow]] = {}
    for row in rows:
        answers = f"{row.group} / {row.against}" if row.against else row.group
        lines.setdefault((row.detector, answers, row.metric), {})[row.depth] = row
    for (detector, answers, metric), cells in lines.items():
        shown = [_detection_cell(cells.get(depth)) for depth in (None, *depths)]
        names = [Text(printable(each)) for each in (detector, answers, metric.replace("_", " "))]
        table.add_row(*names, str(max(row.n for row in cells.values())), *shown)
    return table


def _detection_cell(row: DetectionRow | None) -> str:
    if row is None:
        return ""
    if row.value is None:
        return "—"
    if row.depth is not None:
        return f"{row.value:.3f}" if row.metric == "auroc" else f"{row.value:.1f}"
    interval = "" if row.ci_low is None or row.ci_high is None else f" [{row.ci_low:.1f}, {row.ci_high:.1f}]"
    return f"{row.value:.1f}{interval}"
