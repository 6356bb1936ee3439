"""Schemas of one prompt and its responses in plain columns: preference, Alpaca, Dolly, LLaMA-Factory and labelled."""

from typing import Any

from derta.data.readers import Row
from derta.data.schemas.chats import as_messages, is_chat, is_chat_as_text
from derta.data.schemas.schema import Schema, each, flag, pairs, text
from derta.data.triples import type_name
from derta.errors import InputError, did_you_mean


def _preference(row: Row) -> dict[str, Any]:
    columns = {c: row.values[c] for c in ("prompt", "chosen", "rejected", "harmful_prefix") if c in row.values}
    return {name: _messages_or_text(v, name, row) for name, v in columns.items()}


def _messages_or_text(value: Any, column: str, row: Row) -> Any:
    return as_messages(value, column, row.origin) if is_chat(value) or is_chat_as_text(value) else value


def _completion(row: Row) -> dict[str, Any]:
    found = {column: _messages_or_text(row.values[column], column, row) for column in ("prompt", "completion")}
    prompt, completion = (v if isinstance(v, list) else text(row, column) for column, v in found.items())
    return {"prompt": prompt, "chosen": completion}


def _circuit_breakers(row: Row) -> dict[str, Any]:
    return {"prompt": text(row, "prompt"), "chosen": text(row, "llama3_output"), "rejected": text(row, "output")}


def _optional(row: Row, column: str) -> str:
    """Return the text in a column that may be missing, null or empty."""
    value = row.values.get(column)
    if value is not None and not isinstance(value, str):
        raise InputError(f"{row.origin}: {column} must be text, not {type_name(value)}")
    return text(row, column) if value and value.strip() else ""


def _prompt(row: Row, extra: str) -> Any:
    """Join the instruction with its input, below the system prompt and the turns before it if there are any."""
    instruction, given = text(row, "instruction"), _optional(row, extra)
    asked = f"{instruction}\n\n{given}" if given else instruction
    system, history = _optional(row, "system"), row.values.get("history") or []
    if not system and not history:
        return asked
    if not isinstance(history, list) or not all(isinstance(turn, list) and len(turn) == 2 for turn in history):
        raise InputError(f"{row.origin}: history must be a list of pairs [prompt, response]")
    turns = [{"role": "system", "content": system}] if system else []
    for user, assistant in history:
        turns += [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]
    return [*turns, {"role": "user", "content": asked}]


def _beside(prompt: Any, response: str) -> Any:
    """Give a response the form of its prompt."""
    return [{"role": "assistant", "content": response}] if isinstance(prompt, list) else response


def _alpaca(row: Row) -> dict[str, Any]:
    prompt = _prompt(row, "input")
    return {"prompt": prompt, "chosen": _beside(prompt, text(row, "output"))}


def _dolly(row: Row) -> dict[str, Any]:
    prompt = _prompt(row, "context")
    return {"prompt": prompt, "chosen": _beside(prompt, text(row, "response"))}


def _llama_factory(row: Row) -> dict[str, Any]:
    prompt = _prompt(row, "input")
    return {"prompt": prompt, **{side: _beside(prompt, text(row, side)) for side in ("chosen", "rejected")}}


_SAFE = frozenset(("safe", "harmless", "benign", "good", "refusal", "refused", "accepted", "chosen", "desirable"))
_UNSAFE = frozenset(
    ("unsafe", "harmful", "toxic", "malicious", "bad", "compliance", "jailbroken", "rejected", "undesirable")
)


def _labelled_safe(row: Row) -> bool:
    word = str(row.values["label"]).strip().lower()
    if word in _SAFE or word in _UNSAFE:
        return word in _SAFE
    hint = did_you_mean(word, _SAFE | _UNSAFE)
    raise InputError(
        f"{row.origin}: label {str(row.values['label'])[:40]!r} does not say whether the answer is safe{hint}; write "
        f"'safe' or 'unsafe' in its place"
    )


_Q, _SAFE_ANSWER, _UNSAFE_ANSWER = "How do I open the moon vault?", "I'm sorry, it stays shut.", "Turn the silver key."

PREFERENCE = Schema(
    "preference",
    "TRL's and this project's own: triples, and helpful examples where rejected is missing; texts or messages",
    ("chosen",),
    ("prompt", "rejected", "harmful_prefix"),
    each(_preference),
    [{"prompt": _Q, "chosen": _SAFE_ANSWER, "rejected": _UNSAFE_ANSWER}, {"prompt": "Name a moon.", "chosen": "Io."}],
)
LLAMA_FACTORY = Schema(
    "llama-factory",
    "LLaMA-Factory's DPO data in Alpaca's columns: triples",
    ("instruction", "chosen", "rejected"),
    ("input", "system", "history"),
    each(_llama_factory),
    [{"instruction": _Q, "input": "", "chosen": _SAFE_ANSWER, "rejected": _UNSAFE_ANSWER}],
)
CIRCUIT_BREAKERS = Schema(
    "circuit-breakers",
    "the training data of circuit breakers: triples",
    ("prompt", "output", "llama3_output"),
    (),
    each(_circuit_breakers),
    [{"prompt": _Q, "output": _UNSAFE_ANSWER, "llama3_output": _SAFE_ANSWER}],
)
ALPACA = Schema(
    "alpaca",
    "Alpaca, WizardLM, LLaMA-Factory's SFT data: helpful examples",
    ("instruction", "output"),
    ("input", "system", "history"),
    each(_alpaca),
    [{"instruction": "Translate into Latin.", "input": "moon", "output": "luna"}],
)
DOLLY = Schema(
    "dolly",
    "Dolly: helpful examples",
    ("instruction", "response"),
    ("context",),
    each(_dolly),
    [{"instruction": "Which moon is named?", "context": "Io circles Jupiter.", "response": "Io."}],
)
KTO = Schema(
    "kto",
    "TRL's unpaired preferences, label true for a response to learn: paired by prompt into triples",
    ("prompt", "completion", "label"),
    (),
    pairs("prompt", "completion", lambda row: flag(row, "label")),
    [
        {"prompt": _Q, "completion": _SAFE_ANSWER, "label": True},
        {"prompt": _Q, "completion": _UNSAFE_ANSWER, "label": False},
    ],
)
PROMPT_COMPLETION = Schema(
    "prompt-completion",
    "TRL's prompt and completion, texts or messages: helpful examples",
    ("prompt", "completion"),
    (),
    each(_completion),
    [{"prompt": "Name a moon.", "completion": "Io."}],
)
QUESTION_ANSWER_LABEL = Schema(
    "question-answer-label",
    "answers labelled safe or unsafe: paired by question into triples",
    ("question", "answer", "label"),
    (),
    pairs("question", "answer", _labelled_safe),
    [
        {"question": _Q, "answer": _SAFE_ANSWER, "label": "safe"},
        {"question": _Q, "answer": _UNSAFE_ANSWER, "label": "unsafe"},
    ],
)
