"""Schemas of one prompt and its responses in plain columns."""

from typing import Any

from derta.data.readers import Row
from derta.data.schemas.chats import as_messages, is_chat, is_chat_as_text, refuse_transcript
from derta.data.schemas.schema import Schema, each, text
from derta.data.triples import type_name
from derta.errors import InputError


def _preference(row: Row) -> dict[str, Any]:
    columns = {c: row.values[c] for c in ("prompt", "chosen", "rejected", "harmful_prefix") if c in row.values}
    return {name: _messages_or_text(v, name, row) for name, v in columns.items()}


def _messages_or_text(value: Any, column: str, row: Row) -> Any:
    refuse_transcript(value, column, row.origin)
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


def _prompt(row: Row) -> Any:
    """Join the instruction with its input, below the system prompt and the turns before it if there are any."""
    instruction, given = text(row, "instruction"), _optional(row, "input")
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
    prompt = _prompt(row)
    return {"prompt": prompt, "chosen": _beside(prompt, text(row, "output"))}


def _llama_factory(row: Row) -> dict[str, Any]:
    prompt = _prompt(row)
    return {"prompt": prompt, **{side: _beside(prompt, text(row, side)) for side in ("chosen", "rejected")}}


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
PROMPT_COMPLETION = Schema(
    "prompt-completion",
    "TRL's prompt and completion, texts or messages: helpful examples",
    ("prompt", "completion"),
    (),
    each(_completion),
    [{"prompt": "Name a moon.", "completion": "Io."}],
)
