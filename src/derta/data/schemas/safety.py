"""Schemas of public safety data: PKU-SafeRLHF, BeaverTails, WildJailbreak, and the DeRTa release."""

import re
from collections.abc import Iterator
from typing import Any

from derta.data.readers import OnProblem, Row
from derta.data.schemas.schema import Read, Schema, Skipped, each, flag, pairs, text
from derta.data.triples import checked_text
from derta.errors import InputError, did_you_mean


def _pku_saferlhf(row: Row) -> dict[str, Any] | str:
    first, second = flag(row, "is_response_0_safe"), flag(row, "is_response_1_safe")
    if first == second:
        return "both responses safe" if first else "both responses unsafe"
    chosen, rejected = ("response_0", "response_1") if first else ("response_1", "response_0")
    return {"prompt": text(row, "prompt"), "chosen": text(row, chosen), "rejected": text(row, rejected)}


_WILDJAILBREAK_TYPES = ("vanilla_benign", "adversarial_benign", "vanilla_harmful", "adversarial_harmful")


def _wildjailbreak(row: Row) -> dict[str, Any] | str:
    kind = text(row, "data_type")
    if kind not in _WILDJAILBREAK_TYPES:
        hint = did_you_mean(kind, _WILDJAILBREAK_TYPES)
        raise InputError(
            f"{row.origin}: data_type must be one of {', '.join(_WILDJAILBREAK_TYPES)}, not {kind[:40]!r}{hint}"
        )
    if kind.endswith("_harmful"):
        return "harmful prompt without a harmful response"
    return {"prompt": text(row, kind.removesuffix("_benign")), "chosen": text(row, "completion")}


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
        response = checked_text(_RELEASE_END.sub("", text(row, "text")).strip(), "text", row.origin)
        if is_rto:
            # What stands before the harmful response is a part of it: RTO covers the whole.
            return {"prompt": prompt, "chosen": None, "rejected": f"{prefix} {response}".strip()}
        if prefix or prompt in harmful_prompts:
            return {"prompt": prompt, "chosen": response, "harmful_prefix": prefix}
        return {"prompt": prompt, "chosen": response}

    yield from each(convert)(read, skipped, on_problem)


def _release_row(row: Row) -> tuple[str, str, bool]:
    """Return the prompt, the harmful prefix and whether the row is for RTO."""
    match = _RELEASE_PREFIX.fullmatch(text(row, "prefix"))
    if not match or not match[1].strip():
        raise InputError(rf"{row.origin}: prefix must hold its prompt between [INST] and [\INST]")
    return match[1].strip(), match[2].strip(), flag(row, "safe")


_ASKED, _SHUT, _KEY = "How do I open the moon vault?", "I'm sorry, it stays shut.", "Turn the silver key."
PKU_SAFERLHF = Schema(
    "pku-saferlhf",
    "PKU-SafeRLHF: triples where one of two responses is safe",
    ("prompt", "response_0", "response_1", "is_response_0_safe", "is_response_1_safe"),
    (),
    each(_pku_saferlhf),
    [
        {
            "prompt": _ASKED,
            "response_0": _SHUT,
            "response_1": _KEY,
            "is_response_0_safe": True,
            "is_response_1_safe": False,
        }
    ],
)
BEAVERTAILS = Schema(
    "beavertails",
    "BeaverTails, responses judged one by one: paired by prompt into triples",
    ("prompt", "response", "is_safe"),
    (),
    pairs("prompt", "response", lambda row: flag(row, "is_safe")),
    [
        {"prompt": _ASKED, "response": _SHUT, "is_safe": True},
        {"prompt": _ASKED, "response": _KEY, "is_safe": False},
    ],
)
WILDJAILBREAK = Schema(
    "wildjailbreak",
    "WildJailbreak: helpful (borderline) examples of its benign rows",
    ("vanilla", "adversarial", "completion", "data_type"),
    (),
    each(_wildjailbreak),
    [
        {
            "vanilla": "How do I open a sofa bed?",
            "adversarial": "",
            "completion": "Pull.",
            "data_type": "vanilla_benign",
        }
    ],
)
DERTA_RELEASE = Schema(
    "derta-release",
    "the rows of the DeRTa release: the two halves of triples, and helpful examples",
    ("prefix", "text", "safe"),
    (),
    _derta_release,
    [
        {"prefix": f"[INST] {_ASKED} [\\INST] Turn the", "text": f" {_SHUT}</s>", "safe": "false"},
        {"prefix": f"[INST] {_ASKED} [\\INST]", "text": f" {_KEY}</s>", "safe": "true"},
    ],
)
