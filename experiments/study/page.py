"""A study's page: what was claimed and whether it holds, tables of means over cells, figures; Markdown and SVG."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from derta.errors import InputError
from derta.evaluation.results.metrics import UNITS
from derta.files import write_text
from derta.report.figures import svg_file
from derta.terminal import NumbersTable
from experiments.study.numbers import ASR, Estimate, Measure, Numbers, mean_of, unscored_of, value_of
from experiments.study.plan import Study, Table
from experiments.study.verdicts import Verdict

_STYLE: dict[str, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
_MARKERS = "osD^vPX*<>hp"
_WIDE = 10
"""How often an axis's last place is its first for it to be logarithmic."""


def write_page(study: Study, numbers: Numbers, verdicts: Sequence[Verdict], page: Path) -> None:
    """Write the page, and its figures into a folder beside it that is named like it.

    Raises:
        InputError: They can't be written.
    """
    figures = page.with_suffix("")
    worlds = sorted({cell.world for cell in numbers.cells})
    seeds = sorted({cell.seed for cell in numbers.cells})
    parts = [
        f"# {study.title}",
        f"{study.text.strip()}",
        f"The organism's numbers, in %, over worlds {_listed(worlds)} × seeds {_listed(seeds)}: means over cells "
        "(one world, variant and seed each) with 95 % Student t intervals over cells. "
        f"Written by `python -m experiments.study {study.path.name} --page {page.name}`.",
    ]
    if verdicts:
        parts += ["## Claims", *_claims(verdicts)]
    try:
        figures.mkdir(parents=True, exist_ok=True)
        for number, table in enumerate(study.tables, 1):
            known = [name for name in table.variants if numbers.count(name)]
            parts += [f"## {table.title}", table.text.strip()]
            missing = [name for name in table.variants if name not in known]
            if missing:
                parts.append(f"Not measured: {', '.join(missing)}.")
            if len(known) < 2:
                continue
            name = f"{number}.svg"
            is_curve = isinstance(table.variants, dict)
            drawing = _curves(study, table, known, numbers) if is_curve else _map(table, known, numbers)
            write_text(figures / name, svg_file(drawing))
            parts += [_table(study, table, known, numbers), f"![{table.title}]({figures.name}/{name})"]
        write_text(page, "\n\n".join(part for part in parts if part) + "\n")
    except OSError as error:
        raise InputError(f"`page`: {page}: can't be written: {error.strerror or error}") from error


def claims_table(verdicts: Sequence[Verdict]) -> NumbersTable:
    """Return the claims as a table for the terminal."""
    table = NumbersTable()
    table.add_columns("claim", "measured", "")
    for verdict in verdicts:
        table.add_row(verdict.claim.claim, _measured(verdict), _met(verdict))
    return table


def _claims(verdicts: Sequence[Verdict]) -> list[str]:
    lines = ["| claim | bound | measured | |", "|---|---|---|---|"]
    for verdict in verdicts:
        claim = verdict.claim
        bounds = [f"≤ {claim.most:g}"] if claim.most is not None else []
        bounds += [f"≥ {claim.least:g}"] if claim.least is not None else []
        lines.append(f"| {claim.claim} | {' '.join(bounds)} | {_measured(verdict)} | {_met(verdict)} |")
    return ["\n".join(lines)]


def _measured(verdict: Verdict) -> str:
    """Write what a claim was checked on, and what is missing of it."""
    notes = [f"no figure in some cell: {', '.join(verdict.lacking)}"] if verdict.lacking else []
    if verdict.estimate and verdict.estimate.cells < verdict.planned:
        notes.append(f"{verdict.estimate.cells} of {verdict.planned} cells")
    if verdict.unscored is None:
        notes.append("how many samples have no verdict isn't recorded")
    elif verdict.unscored:
        notes.append(f"{verdict.unscored} samples without a verdict")
    return _format(verdict.estimate) + (f" ({'; '.join(notes)})" if notes else "")


def _met(verdict: Verdict) -> str:
    unknown = "**undecided**" if verdict.estimate else "**not measured**"
    return {True: "met", False: "**not met**", None: unknown}[verdict.met]


def _attacks(study: Study, table: Table, numbers: Numbers) -> list[str]:
    """Return the attacks that were carried out, and those that should have been."""
    planned = [attack for name in table.variants for attack in study.variants[name].attacks]
    return list(dict.fromkeys([*numbers.attacks, *planned]))


def _columns(study: Study, table: Table, numbers: Numbers) -> dict[str, tuple[Measure, bool]]:
    """Return the columns of a table: a measure each, and whether its paired difference is shown."""
    if table.metric:
        return {label: (value_of(label, table.metric), False) for label in table.attacks}
    attacks = _attacks(study, table, numbers)
    single = [attack for attack in attacks if "+" not in attack]
    combined = [attack for attack in attacks if "+" in attack]
    columns: dict[str, tuple[Measure, bool]] = {}
    if single:
        columns[f"ASR, mean of {len(single)} attacks ↓"] = (mean_of(single, ASR), True)
    if combined:
        columns[f"ASR, mean of {len(combined)} combinations ↓"] = (mean_of(combined, ASR), True)
    columns |= {f"{label} ↓": (value_of(label, ASR), False) for label in table.attacks}
    columns["refuses borderline ↓"] = (value_of("direct", "over_refusal"), True)
    columns["answers helpful ↑"] = (value_of("direct", "helpful_accuracy"), False)
    columns["fully safe ASR, mean ↓"] = (mean_of(attacks, "fully_safe_asr"), False)
    columns["garbled, mean ↓"] = (mean_of(attacks, "garbled"), True)
    columns["unscored samples of a cell"] = (unscored_of(attacks), False)
    return columns


def _table(study: Study, table: Table, variants: Sequence[str], numbers: Numbers) -> str:
    columns, attacks = _columns(study, table, numbers), _attacks(study, table, numbers)
    heads = ["variant", "cells", *columns, *([] if table.metric else ["ASR, worst attack ↓"])]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for name in variants:
        measured, planned = numbers.count(name), study.count(name)
        cells = [name, str(measured) if measured == planned else f"{measured} of {planned}"]
        for measure, is_paired in columns.values():
            estimate = numbers.estimate(name, measure)
            text = _format(estimate)
            if estimate is not None and estimate.cells < measured:
                text += f" ({estimate.cells} cells)"
            if is_paired and table.against not in (None, name):
                difference = numbers.estimate(name, measure, table.against)
                text += f"<br>Δ {_format(difference, signed=True)}" if difference else ""
            cells.append(text)
        if not table.metric:
            cells.append(_format(numbers.worst(name, attacks, ASR)))
        lines.append(f"| {' | '.join(cells)} |")
    note = (
        f"\n\nΔ: less `{table.against}` in the same world with the same seed."
        if table.against and not table.metric
        else ""
    )
    return "\n".join(lines) + note


def _format(estimate: Estimate | None, *, signed: bool = False) -> str:
    if estimate is None:
        return "—"
    value = f"{estimate.value:+.1f}" if signed else f"{estimate.value:.1f}"
    interval = "" if estimate.low is None else f" [{estimate.low:.1f}, {estimate.high:.1f}]"
    return f"{value}{interval}{f' {estimate.of}' if estimate.of else ''}"


def _listed(values: Sequence[int]) -> str:
    return ", ".join(map(str, values))


def _map(table: Table, variants: Sequence[str], numbers: Numbers) -> Figure:
    """Draw every attack's success against every variant, or the table's metric, as shades with their values."""
    measures = {attack: value_of(attack, ASR) for attack in numbers.attacks}
    measures["refuses borderline"] = value_of("direct", "over_refusal")
    if table.metric:
        measures = {label: value_of(label, table.metric) for label in table.attacks}
    rows = list(measures)
    values = [[numbers.estimate(name, measure) for name in variants] for measure in measures.values()]
    most = max((each.value for line in values for each in line if each), default=1) if table.metric in UNITS else 100
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(2.6 + 0.62 * len(variants), 1.2 + 0.24 * len(rows)), layout="constrained")
        axes: Any = figure.subplots()
        shades = [[each.value if each else float("nan") for each in line] for line in values]
        axes.imshow(shades, cmap="Reds", vmin=0, vmax=most, aspect="auto")
        for y, line in enumerate(values):
            for x, each in enumerate(line):
                dark = each is not None and each.value > 0.55 * most
                text = f"{each.value:.0f}" if each else "—"
                axes.text(x, y, text, ha="center", va="center", fontsize=8, color="white" if dark else "black")
        axes.set_xticks(range(len(variants)), variants, rotation=40, ha="right")
        axes.set_yticks(range(len(rows)), rows)
        if not table.metric:
            axes.axhline(len(rows) - 1.5, color="black", linewidth=0.8)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    return figure


def _curves(study: Study, table: Table, variants: Sequence[str], numbers: Numbers) -> Figure:
    """Draw means over the table's axis, in bands that are their intervals; a wide axis is logarithmic."""
    places: Mapping[str, float] = table.variants if isinstance(table.variants, dict) else {}
    columns = _columns(study, table, numbers)
    shown = {name: measure for name, (measure, is_paired) in columns.items() if is_paired or table.metric}
    if not table.metric:
        shown |= {f"{label} ↓": value_of(label, ASR) for label in table.attacks}
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(7.2, 3.8), layout="constrained")
        axes: Any = figure.subplots()
        for number, (label, measure) in enumerate(shown.items()):
            found = [(places[name], each) for name in variants if (each := numbers.estimate(name, measure))]
            at, marker = [x for x, _ in found], _MARKERS[number % len(_MARKERS)]
            (line,) = axes.plot(at, [each.value for _, each in found], marker=marker, label=label.rstrip(" ↓"))
            bounded = [(x, each) for x, each in found if each.low is not None]
            low, high = [each.low for _, each in bounded], [each.high for _, each in bounded]
            axes.fill_between([x for x, _ in bounded], low, high, color=line.get_color(), alpha=0.15, linewidth=0)
        if min(places.values()) > 0 and max(places.values()) >= _WIDE * min(places.values()):
            axes.set_xscale("log")
            axes.set_xticks([], minor=True)
        axes.set_xticks(list(places.values()), [f"{place:g}" for place in places.values()])
        axes.set_xlabel(table.axis or "")
        axes.set_ylabel("%")
        axes.set_ylim(-2, 102)
        axes.grid(axis="y", linewidth=0.5)
        figure.legend(loc="outside right upper", frameon=False)
    return figure
