"""Schemas: which columns a public data set has, and what its rows become.

Every schema turns rows into canonical ones (`prompt`, `chosen`, `rejected`, and `harmful_prefix` for the DeRTa
release). What it can't use it counts, with the reason.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from difflib import SequenceMatcher, get_close_matches
from typing import Any, NamedTuple

from derta.data.readers import OnProblem, Row
from derta.data.triples import checked_text, type_name
from derta.errors import InputError, did_you_mean

Read = Callable[[OnProblem], Iterator[Row]]
"""Begins to read a source's rows; a schema may call it more than once."""


Skipped = Counter[str]
"""How many rows a schema had no use for, by reason."""

Adapter = Callable[[Read, Skipped, OnProblem], Iterator[Row]]
"""Turns a source's rows into canonical ones."""


class Schema(NamedTuple):
    """One layout of columns.

    Attributes:
        name: what `--schema` calls it.
        required: columns that every row has.
        optional: columns that a row may have.
        adapt: turns a source's rows into canonical ones.
    """

    name: str
    required: tuple[str, ...]
    optional: tuple[str, ...]
    adapt: Adapter


def _each(convert: Callable[[Row], dict[str, Any] | str]) -> Adapter:
    """Make an adapter of a function from one row to a canonical one, or to the reason for skipping it."""

    def adapt(read: Read, skipped: Skipped, on_problem: OnProblem) -> Iterator[Row]:
        for row in read(on_problem):
            try:
                converted = convert(row)
            except InputError as error:
                on_problem(error)
                continue
            if isinstance(converted, str):
                skipped[converted] += 1
            else:
                yield Row(row.origin, converted)

    return adapt


def _preference(row: Row) -> dict[str, Any]:
    return {c: row.values[c] for c in ("prompt", "chosen", "rejected", "harmful_prefix") if c in row.values}


def _completion(row: Row) -> dict[str, Any]:
    prompt, completion = row.values["prompt"], row.values["completion"]
    return {
        "prompt": prompt if isinstance(prompt, list) else _text(row, "prompt"),
        "chosen": completion if isinstance(completion, list) else _text(row, "completion"),
    }


def _circuit_breakers(row: Row) -> dict[str, Any]:
    return {"prompt": _text(row, "prompt"), "chosen": _text(row, "llama3_output"), "rejected": _text(row, "output")}


def _pku_saferlhf(row: Row) -> dict[str, Any] | str:
    first, second = _flag(row, "is_response_0_safe"), _flag(row, "is_response_1_safe")
    if first == second:
        return "both responses safe" if first else "both responses unsafe"
    chosen, rejected = ("response_0", "response_1") if first else ("response_1", "response_0")
    return {"prompt": _text(row, "prompt"), "chosen": _text(row, chosen), "rejected": _text(row, rejected)}


def _alpaca(row: Row) -> dict[str, Any]:
    instruction, extra = _text(row, "instruction"), row.values.get("input")
    if extra is not None and not isinstance(extra, str):
        raise InputError(f"{row.origin}: input must be text, not {type_name(extra)}")
    prompt = f"{instruction}\n\n{extra}" if extra and extra.strip() else instruction
    return {"prompt": prompt, "chosen": _text(row, "output")}


_WILDJAILBREAK_TYPES = ("vanilla_benign", "adversarial_benign", "vanilla_harmful", "adversarial_harmful")


def _wildjailbreak(row: Row) -> dict[str, Any] | str:
    kind = _text(row, "data_type")
    if kind not in _WILDJAILBREAK_TYPES:
        hint = did_you_mean(kind, _WILDJAILBREAK_TYPES)
        raise InputError(
            f"{row.origin}: data_type must be one of {', '.join(_WILDJAILBREAK_TYPES)}, not {kind[:40]!r}{hint}"
        )
    if kind.endswith("_harmful"):
        return "harmful prompt without a harmful response"
    return {"prompt": _text(row, kind.removesuffix("_benign")), "chosen": _text(row, "completion")}


def _beavertails(read: Read, skipped: Skipped, on_problem: OnProblem) -> Iterator[Row]:
    """Group by prompt and pair safe with unsafe responses in order; annotators may disagree about one response."""
    prompts: dict[str, dict[str, tuple[set[bool], str]]] = {}
    for row in read(on_problem):
        try:
            prompt, response, safe = _text(row, "prompt"), _text(row, "response"), _flag(row, "is_safe")
        except InputError as error:
            on_problem(error)
            continue
        labels, _ = prompts.setdefault(prompt, {}).setdefault(response, (set(), row.origin))
        if safe in labels:
            skipped["same prompt, response and label again"] += 1
        labels.add(safe)
    for prompt, responses in prompts.items():
        safe_ones = [text for text, (labels, _) in responses.items() if labels == {True}]
        unsafe_ones = [(text, origin) for text, (labels, origin) in responses.items() if labels == {False}]
        for chosen, (rejected, origin) in zip(safe_ones, unsafe_ones, strict=False):
            yield Row(origin, {"prompt": prompt, "chosen": chosen, "rejected": rejected})
        pairs = min(len(safe_ones), len(unsafe_ones))
        skipped.update(
            {"labelled both safe and unsafe": sum(2 for labels, _ in responses.values() if len(labels) == 2)}
        )
        skipped.update({"safe without an unsafe response to pair it with": len(safe_ones) - pairs})
        skipped.update({"unsafe without a safe response to pair it with": len(unsafe_ones) - pairs})


_RELEASE_PREFIX = re.compile(r"\s*\[INST\](.*?)\[[\\/]INST\](.*)", re.DOTALL)
_RELEASE_END = re.compile(r"(?:\s*(?:<\|end_of_text\|>|<\|eot_id\|>|</s>))+\s*\Z")


def _derta_release(read: Read, skipped: Skipped, on_problem: OnProblem) -> Iterator[Row]:
    """Read the released training rows: safe "false" is a response to train on, "true" a harmful one for RTO.

    A response without a harmful prefix is a safe one (cut 0) where other rows mark its prompt as harmful, and a
    helpful example elsewhere; hence two readings, of which the second reports the problems.
    """
    harmful_prompts: set[str] = set()
    for row in read(lambda error: None):
        try:
            prompt, prefix, is_rto = _release_row(row)
        except InputError:
            continue
        if prefix or is_rto:
            harmful_prompts.add(prompt)

    def convert(row: Row) -> dict[str, Any] | str:
        prompt, prefix, is_rto = _release_row(row)
        text = checked_text(_RELEASE_END.sub("", _text(row, "text")).strip(), "text", row.origin)
        if is_rto:
            # What stands before the harmful response is a part of it: RTO covers the whole.
            return {"prompt": prompt, "chosen": None, "rejected": f"{prefix} {text}".strip()}
        if prefix or prompt in harmful_prompts:
            return {"prompt": prompt, "chosen": text, "harmful_prefix": prefix}
        return {"prompt": prompt, "chosen": text}

    yield from _each(convert)(read, skipped, on_problem)


def _release_row(row: Row) -> tuple[str, str, bool]:
    """Return the prompt, the harmful prefix and whether the row is for RTO."""
    match = _RELEASE_PREFIX.fullmatch(_text(row, "prefix"))
    if not match or not match[1].strip():
        raise InputError(rf"{row.origin}: prefix must hold its prompt between [INST] and [\INST]")
    return match[1].strip(), match[2].strip(), _flag(row, "safe")


def _text(row: Row, column: str) -> str:
    return checked_text(row.values[column], column, row.origin)


def _flag(row: Row, column: str) -> bool:
    value = row.values[column]
    text = str(value).strip().lower()
    if text not in ("true", "false"):
        raise InputError(f"{row.origin}: {column} must be true or false, not {str(value)[:40]!r}")
    return text == "true"


PREFERENCE = Schema("preference", ("chosen",), ("prompt", "rejected", "harmful_prefix"), _each(_preference))
# A row belongs to the first of these whose required columns it has.
SCHEMAS = (
    PREFERENCE,
    Schema("circuit-breakers", ("prompt", "output", "llama3_output"), (), _each(_circuit_breakers)),
    Schema(
        "pku-saferlhf",
        ("prompt", "response_0", "response_1", "is_response_0_safe", "is_response_1_safe"),
        (),
        _each(_pku_saferlhf),
    ),
    Schema("beavertails", ("prompt", "response", "is_safe"), (), _beavertails),
    Schema("wildjailbreak", ("vanilla", "adversarial", "completion", "data_type"), (), _each(_wildjailbreak)),
    Schema("derta-release", ("prefix", "text", "safe"), (), _derta_release),
    Schema("alpaca", ("instruction", "output"), ("input",), _each(_alpaca)),
    Schema("prompt-completion", ("prompt", "completion"), (), _each(_completion)),
)

# Columns of these data sets, and of others, that have nothing to say about prompt or response.
_KNOWN_EXTRAS = frozenset(
    (
        *("category", "data_type", "dataset", "id", "idx", "index", "lang", "language", "license", "messages", "meta"),
        *("metadata", "model", "origin", "score", "source", "split", "tactics", "tags", "uid", "url"),
        *("prompt_id", "prompt_source", "chosen_model", "chosen_rating", "rejected_model", "rejected_rating"),
        *("score_chosen", "score_rejected", "better_response_id", "safer_response_id"),
        *("response_0_harm_category", "response_0_severity_level", "response_0_sha256", "response_0_source"),
        *("response_1_harm_category", "response_1_severity_level", "response_1_sha256", "response_1_source"),
    )
)
_NEAR = 0.8  # similarity of a column's name to the name that it misspells


def schema_of(name: str, columns: tuple[str, ...], origin: str) -> Schema:
    """Return the schema called `name`, or for "auto" the one that `columns` fit.

    Raises:
        InputError: no schema has that name, no schema has those columns, or they are an evaluation set's.
    """
    if name != "auto":
        named = [schema for schema in SCHEMAS if schema.name == name]
        if not named:
            names = [schema.name for schema in SCHEMAS]
            raise InputError(f"--schema: unknown schema {name!r}{did_you_mean(name, names)}; auto, {', '.join(names)}")
        return named[0]
    fits = [schema for schema in SCHEMAS if set(schema.required) <= set(columns)]
    if not fits or (fits[0] is PREFERENCE and "prompt" not in columns):
        _refuse_evaluation_data(columns, origin)
    return fits[0] if fits else _nearest(columns, origin)


def _refuse_evaluation_data(columns: tuple[str, ...], origin: str) -> None:
    without_extras = set(columns) - _KNOWN_EXTRAS - {"type", "label", "focus", "note"}
    if not {"question", "Behavior", "behavior", "goal", "prompts"} & set(columns) and without_extras != {"prompt"}:
        return
    raise InputError(
        f"{origin}: columns {_listed(columns)} are those of evaluation data (prompts, no response to train on): "
        f"never train on it; evaluate with derta eval --behaviours"
    )


def _nearest(columns: tuple[str, ...], origin: str) -> Schema:
    """Return the schema most like `columns`, whose check will then name the column that is wrong."""

    def similarity(name: str) -> float:
        ratio = max((SequenceMatcher(None, name, column).ratio() for column in columns), default=0.0)
        return ratio if ratio >= _NEAR else 0.0

    def likeness(schema: Schema) -> float:
        found = {name: similarity(name) for name in schema.required + schema.optional}
        return sum(found.values()) - sum(not found[name] for name in schema.required)

    best = max(SCHEMAS, key=likeness)
    if likeness(best) <= 0:
        raise InputError(
            f"{origin}: columns {_listed(columns)} fit no schema; rename them to prompt, chosen and rejected, "
            f"or name a schema with --schema ({', '.join(schema.name for schema in SCHEMAS)})"
        )
    return best


def check_columns(schema: Schema, columns: tuple[str, ...], origin: str) -> list[str]:
    """Stop at a missing or misspelt column, and return the columns that nothing is known about.

    Raises:
        InputError: a required column is missing, or an unknown one is spelt nearly like one the schema knows.
    """
    known = schema.required + schema.optional
    absent = [column for column in known if column not in columns]
    unknown = [column for column in columns if column not in known and column not in _KNOWN_EXTRAS]
    for column in unknown:
        near = _near(column, absent)
        if near:
            raise InputError(f"{origin}: unknown column {column[:40]!r} (did you mean {near!r}?); rename it")
    missing = [column for column in schema.required if column in absent]
    if missing:
        raise InputError(
            f"{origin}: column {missing[0]!r} is missing: schema {schema.name} needs {', '.join(schema.required)}; "
            f"found {_listed(columns)}; add it, or name another schema with --schema"
        )
    return unknown


def _near(column: str, absent: list[str]) -> str | None:
    """Return the absent column that `column` misspells ('rejcted') or stands for ('rejected_response')."""
    plain = column.strip().lower()
    begins = [name for name in absent if plain.startswith(name)]
    if begins:
        return begins[0]
    return next(iter(get_close_matches(plain, absent, n=1, cutoff=_NEAR)), None)


def _listed(columns: tuple[str, ...]) -> str:
    shown = ", ".join(repr(column[:40]) for column in columns[:8])
    return shown + (", ..." if len(columns) > 8 else "") if columns else "(none)"
