"""Two evaluations side by side, with paired differences over what they share and a list of what they don't."""

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from derta.data.readers import printable
from derta.errors import InputError
from derta.evaluation.results.metrics import MetricRow
from derta.evaluation.results.paired import Difference, key_of, paired, same_attempt
from derta.evaluation.results.sample import Sample
from derta.evaluation.results.store import RESULTS, SETTINGS, load_results, load_samples
from derta.files import write_json
from derta.report.terminal import METRICS, format_value, indented, is_shown

# What names an evaluation or its model rather than how it was made.
_NOT_SETTINGS = ("model", "fingerprint", "schema", "tasks")
_NAMED = 5
"""How many of the things that aren't shared are called by name."""


@dataclass(frozen=True)
class Evaluation:
    """A finished evaluation.

    Attributes:
        directory: where it lies.
        rows: its results.
        samples: its judged responses.
        settings: how it was made.
    """

    directory: Path
    rows: Sequence[MetricRow]
    samples: Sequence[Sample]
    settings: dict[str, Any]


@dataclass(frozen=True)
class Comparison:
    """Two evaluations and what changes from the first to the second.

    Attributes:
        first: one evaluation.
        second: the other.
        differences: judge → the second less the first, over shared attempts. Only of judges that both have.
        notes: what they don't share, a line each.
    """

    first: Evaluation
    second: Evaluation
    differences: dict[str, list[Difference]]
    notes: list[str]


def load_evaluation(directory: Path) -> Evaluation:
    """Read an evaluation's directory.

    Raises:
        InputError: it isn't a finished evaluation.
    """
    rows, samples = load_results(directory / RESULTS), load_samples(directory)
    path = directory / SETTINGS
    try:
        settings = json.loads(path.read_text("utf-8")) if path.exists() else {}
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: can't be read: {error}") from error
    return Evaluation(directory, rows, samples, settings if isinstance(settings, dict) else {})


def compare(first: Evaluation, second: Evaluation) -> Comparison:
    """Compare two evaluations. Verdicts of different judges are never subtracted from each other."""
    judges = [judge for judge in _judges(first) if judge in _judges(second)]
    differences = {judge: paired(_judged_by(first, judge), _judged_by(second, judge)) for judge in judges}
    return Comparison(first, second, differences, [*_judge_notes(first, second), *_notes(first, second)])


def _judges(evaluation: Evaluation) -> list[str]:
    return list(dict.fromkeys(sample.judge for sample in evaluation.samples))


def _judged_by(evaluation: Evaluation, judge: str) -> list[Sample]:
    return [sample for sample in evaluation.samples if sample.judge == judge]


def _judge_notes(first: Evaluation, second: Evaluation) -> list[str]:
    ours, theirs = _judges(first), _judges(second)
    if set(ours) == set(theirs):
        return []
    if set(ours) & set(theirs):
        return [f"judges differ: {_list(ours)} and {_list(theirs)}; differences by those that both have"]
    return [f"judges differ: {_list(ours)} and {_list(theirs)}; their verdicts aren't subtracted from each other"]


def _notes(first: Evaluation, second: Evaluation) -> list[str]:
    notes = []
    keys = [{key_of(sample): sample for sample in each.samples} for each in (first, second)]
    for own, other, evaluation in ((keys[0], keys[1], first), (keys[1], keys[0], second)):
        attacks, others = ({sample.variant: None for sample in side.values()} for side in (own, other))
        if only := [attack for attack in attacks if attack not in others]:
            notes.append(f"only in {evaluation.directory}: attacks {_list(only)}")
        shared_attacks = [key for key in own if key[1] in others]
        if missing := list(dict.fromkeys(key[0] for key in shared_attacks if key not in other)):
            notes.append(f"only in {evaluation.directory}: behaviours {_list(missing)}")
    shared = [key for key in keys[0] if key in keys[1]]
    if changed := list(dict.fromkeys(k[0] for k in shared if not same_attempt(keys[0][k], keys[1][k]))):
        notes.append(f"other prompts under the same id, not compared: {_list(changed)}")
    if not shared:
        notes.append("no behaviour is in both: there is nothing to subtract")
    for name in dict.fromkeys([*first.settings, *second.settings]):
        ours, theirs = first.settings.get(name), second.settings.get(name)
        if name not in _NOT_SETTINGS and ours != theirs:
            notes.append(f"{name} differs: {_short(ours)} and {_short(theirs)}")
    if first.settings.get("fingerprint") and first.settings.get("fingerprint") == second.settings.get("fingerprint"):
        notes.append("both are of the same weights")
    return notes


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:59] + "…"


def comparison_table(comparison: Comparison) -> RenderableType:
    """Return the metrics side by side, the differences with their intervals, and the notes."""
    sides = (comparison.first, comparison.second)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.caption = "%, leaks in tokens; 95 % intervals in brackets; changes over shared attempts"
    several = len({row.judge for side in sides for row in side.rows}) > 1
    for heading in ("metric", "attack", *(("judge",) if several else ())):
        table.add_column(heading, no_wrap=True)
    for heading in ("first", "second", "change"):
        table.add_column(heading, justify="right")
    table.add_column("p", justify="right", no_wrap=True)
    before = None
    for metric, attack, judge in _row_keys(comparison):
        cells = [_cell(side, metric, attack, judge) for side in sides]
        found = _difference(comparison, metric, attack, judge)
        names = (METRICS.get(metric, metric) if metric != before else "", indented(attack))
        values = (*names, *((judge,) if several else ()), *cells, *((_format(found), _p(found)) if found else ("", "")))
        table.add_row(*(Text(printable(value)) for value in values))
        before = metric
    places = [f"{name}: {side.directory}" for name, side in zip(("first", "second"), sides, strict=True)]
    return Group(table, *(Text(printable(line), style="italic") for line in (*places, *comparison.notes)))


def _row_keys(comparison: Comparison) -> list[tuple[str, str, str]]:
    order = list(METRICS)
    rows = [row for side in (comparison.first, comparison.second) for row in side.rows]
    keys = dict.fromkeys((row.metric, row.attack, row.judge) for row in rows if is_shown(row, rows))
    return sorted(keys, key=lambda key: order.index(key[0]) if key[0] in order else len(order))


def _cell(side: Evaluation, metric: str, attack: str, judge: str) -> str:
    rows = (row for row in side.rows if (row.metric, row.attack, row.judge) == (metric, attack, judge))
    return next(map(format_value, rows), "")


def _difference(comparison: Comparison, metric: str, attack: str, judge: str) -> Difference | None:
    found = comparison.differences.get(judge, [])
    return next((each for each in found if (each.metric, each.attack) == (metric, attack)), None)


def _format(difference: Difference) -> str:
    if difference.ci_low is None or difference.ci_high is None:
        return f"{difference.value:+.1f}"
    return f"{difference.value:+.1f} [{difference.ci_low:+.1f}, {difference.ci_high:+.1f}]"


def _p(difference: Difference) -> str:
    if difference.p_value is None:
        return ""
    return "<0.001" if difference.p_value < 0.001 else f"{difference.p_value:.3f}"


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what `run` reads."""
    parser.add_argument("first", type=Path, help="directory of an evaluation")
    parser.add_argument("second", type=Path, help="directory of another; differences are this one less the first")
    parser.add_argument("--out", type=Path, help="JSON file to write the comparison to")


def run(args: Namespace) -> int:
    """Print the comparison and, with `out`, write it as JSON.

    Raises:
        InputError: a directory isn't a finished evaluation, or `out` can't be written.
    """
    out: Path | None = args.out
    comparison = compare(load_evaluation(args.first), load_evaluation(args.second))
    console = Console()
    console.print(comparison_table(comparison))
    if out is not None:
        try:
            write_json(out, _to_json(comparison))
        except OSError as error:
            raise InputError(f"--out: {out}: can't be written: {error.strerror or error}") from error
        console.print(f"wrote {out}", markup=False, highlight=False, soft_wrap=True)
    return 0


def _to_json(comparison: Comparison) -> dict[str, Any]:
    sides = (comparison.first, comparison.second)
    return {
        "directories": [str(side.directory) for side in sides],
        "rows": [[row.to_json() for row in side.rows] for side in sides],
        "differences": {judge: [each.to_json() for each in found] for judge, found in comparison.differences.items()},
        "notes": comparison.notes,
    }
