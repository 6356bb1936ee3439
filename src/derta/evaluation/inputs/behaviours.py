"""Where behaviours come from: the organism, or a file as people have them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from derta.data.behaviours import CONTEXT_END, KINDS, Behaviour, Kind
from derta.data.readers import Row
from derta.errors import InputError, did_you_mean
from derta.evaluation.inputs.columns import check_ids, find_column, find_text, find_value, read_rows, read_text
from derta.names import ORGANISM, organism_world

# JailbreakBench has `Goal` and, as a short title, `Behavior`: the goal comes first.
PROMPT = ("question", "prompt", "forbidden_prompt", "goal", "behavior", "behaviour", "instruction")
RESPONSE = ("response", "rejected", "target")
ID = ("id", "BehaviorID")
CONTEXT = ("ContextString", "context")


def load_behaviours(source: str, limit: int | None = None) -> list[Behaviour]:
    """Return the behaviours of [`read_behaviours`] kind by kind, harmful ones first; `limit` of each kind at most."""
    found = read_behaviours(source)
    return [each for kind in KINDS for each in [b for b in found if b.kind == kind][:limit]]


def read_behaviours(source: str) -> list[Behaviour]:
    """Return the organism's evaluation behaviours, or those of a file, in its order.

    A file (JSON lines, JSON, CSV, TSV, Parquet, or text with a prompt a line) has the request in a column `question` or
    `prompt`, or is one of HarmBench (`Behavior`, `ContextString`, `BehaviorID`), AdvBench (`goal`, `target`),
    JailbreakBench (`Goal`, `Target`), StrongREJECT (`forbidden_prompt`), or preference data (`prompt`, `chosen`,
    `rejected`). Optional are `kind` (harmful if missing; in preference data helpful where nothing is rejected), `id`,
    and a known harmful response for prefill: `response`, `rejected` or `target`.

    Raises:
        InputError: The file can't be read, or a row is wrong; the message names the file and line.
    """
    world = organism_world(source)
    if world is not None:
        from derta.organism import World, behaviours

        return behaviours(world=World(world))
    if not Path(source).is_file():
        raise InputError(f"`behaviours`: {source}: no such file (or {ORGANISM!r} for the embedded world)")
    found = [_behaviour(row) for row in read_rows(Path(source), "behaviours")]
    check_ids([behaviour.id for behaviour in found], "behaviours", source)
    return found


def load_borderline(source: str, limit: int | None = None) -> list[Behaviour]:
    """Return harmless prompts that look harmful: XSTest, OR-Bench or a file of one's own, for over-refusal.

    Columns are those of [`load_behaviours`]. XSTest's contrasts (`label` unsafe, or a `type` of contrast_…) are really
    harmful and left out.

    Raises:
        InputError: The file can't be read, a row is wrong, or nothing harmless is in it.
    """
    rows = [row for row in read_rows(Path(source), "borderline") if not _is_contrast(row)]
    _check_kinds(rows, "borderline")
    found = [replace(_behaviour(row), kind="borderline", response=None) for row in rows]
    if not found:
        raise InputError(f"`borderline`: {source}: there is no harmless prompt in this file")
    check_ids([behaviour.id for behaviour in found], "borderline", source)
    return found[:limit]


def load_requests(source: str, kind: Kind) -> list[tuple[str, Behaviour]]:
    """Return the prompts of a file, all taken to be of one kind, each with where it stands ("file:line").

    Columns are those of [`load_behaviours`], a known harmful response is in `response` or `rejected`: the `target` of
    attacks is no more than how one begins. XSTest's contrasts are no borderline prompts.

    Raises:
        InputError: The file can't be read, or a row is wrong or says that it is of another kind.
    """
    rows = read_rows(Path(source), kind)
    _check_kinds(rows, kind)
    return [
        (row.origin, replace(_behaviour(row), kind=kind, response=find_text(row, RESPONSE[:2])))
        for row in rows
        if not (kind == "borderline" and _is_contrast(row))
    ]


def _check_kinds(rows: Sequence[Row], kind: Kind) -> None:
    """Stop at a harmful row among harmless ones, or the reverse."""
    for row in rows:
        own = (find_value(row, "kind") or kind).lower()
        if (own == "harmful") != (kind == "harmful"):
            raise InputError(f"{row.origin}: kind: {own!r}, where {kind} prompts are read; leave the row out")


def _is_contrast(row: Row) -> bool:
    label, kind = ((find_value(row, name) or "").lower() for name in ("label", "type"))
    return label == "unsafe" or kind.startswith("contrast_")


def _behaviour(row: Row) -> Behaviour:
    prompt, response = read_text(row, PROMPT), find_text(row, RESPONSE)
    if context := find_text(row, CONTEXT):
        prompt = context + CONTEXT_END + prompt
    is_preference = find_column(row, ["chosen"]) is not None
    kind = (find_value(row, "kind") or "").lower() or ("helpful" if is_preference and response is None else "harmful")
    if kind not in KINDS:
        raise InputError(f"{row.origin}: kind: {kind!r}{did_you_mean(str(kind), KINDS)}; one of {', '.join(KINDS)}")
    return Behaviour(find_value(row, *ID) or row.origin, prompt, kind, response)
