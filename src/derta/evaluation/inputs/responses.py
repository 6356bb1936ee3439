"""Files of responses that somebody generated: rows of any common shape in, prompts and responses out.

Read as they are: JSON lines or an array of objects (CSV, TSV and Parquet too) with a prompt and a response by any of
their usual names; bare strings that hold a prompt and its completion, as the DeRTa release stores CompletingAttack; and
the summaries that PAIR prints.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from derta.data.readers import Row, read_file
from derta.data.triples import whole_text
from derta.errors import InputError
from derta.evaluation.inputs.columns import find_text, find_value, read_text
from derta.files import parse_json

PROMPT_COLUMNS = ("question", "instruction", "prompt", "behavior", "behaviour", "goal")
RESPONSE_COLUMNS = ("response", "output", "completion", "generation")
_TABLES = (".csv", ".tsv", ".parquet")
_SUMMARY = "FINAL SUMMARY STATISTICS"
_SPOKEN = re.compile(r"\A.{1,1000}?:(?:\s{0,8}Step 1 ?:)?", re.DOTALL)
_LINE = re.compile(r"\A.{1,1000}?\n")
_SENTENCE = re.compile(r"\A.{1,1000}?[.!?](?=\s|[A-Z])", re.DOTALL)


@dataclass(frozen=True)
class Response:
    """One answered prompt.

    Attributes:
        origin: File and line (for an array: and number of the row).
        prompt: What was asked, disguise included.
        response: What the model wrote.
        prefix: How its turn had begun.
        answer: The right answer, if the row holds one.
        is_raw: Whether the response continues the prompt as one text.
        jailbroken: What a PAIR summary says; `None` for other rows.
    """

    origin: str
    prompt: str
    response: str
    prefix: str = ""
    answer: str | None = None
    is_raw: bool = False
    jailbroken: bool | None = None


def read_responses(path: Path, prompts: Path | None = None) -> list[Response]:
    """Return the rows of a file of responses.

    Args:
        path: The file.
        prompts: A file with the prompts that bare strings begin with. Without it, a string's prompt ends with its first
            colon ("…:\\n Step 1:"), or its first sentence or line; text without any of them is all response.

    Raises:
        InputError: the file can't be read, is empty, holds rows of two forms or none that begins with a prompt, or a
            row has no prompt or response; the message names the line.
    """
    known = _read_prompts(prompts) if prompts else None
    found = [_response(origin, value, known) for origin, value in _values(path)]
    if not found:
        raise InputError(f"{path}: there is no response in this file")
    other = next((each for each in found if (each.jailbroken is None) != (found[0].jailbroken is None)), None)
    if other is not None:
        raise InputError(f"{other.origin}: PAIR summaries and responses in one file: score them apart")
    if prompts and not any(each.is_raw for each in found):
        raise InputError(f"`prompts`: no row of {path} is a string that begins with a prompt; leave it out")
    return found


def _values(path: Path) -> Iterator[tuple[str, Any]]:
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if path.suffix.lower() in _TABLES:
        yield from ((row.origin, row.values) for row in read_file(path))
        return
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: can't be read as UTF-8 text: {error}") from None
    if text.lstrip()[:1] == "[":
        yield from ((f"{path}: row {number}", value) for number, value in enumerate(parse_json(text, f"{path}"), 1))
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield f"{path}:{number}", parse_json(line, f"{path}:{number}")


def _response(origin: str, value: Any, known: Sequence[str] | None) -> Response:
    if isinstance(value, str):
        whole_text(value, origin)
        return _summary(origin, value) if _SUMMARY in value else _completion(origin, value, known)
    if not isinstance(value, dict):
        raise InputError(f"{origin}: a row must be an object or a string, not {type(value).__name__}")
    row = Row(origin, value)
    prompt, response = (read_text(row, names, may_be_empty=True) for names in (PROMPT_COLUMNS, RESPONSE_COLUMNS))
    return Response(origin, prompt, response, find_text(row, ["prefix"]) or "", find_value(row, "answer"))


def _completion(origin: str, text: str, known: Sequence[str] | None) -> Response:
    if known is not None:
        end = next((end for prompt in known if (end := _end_of(prompt, text)) is not None), None)
        if end is None:
            raise InputError(f"{origin}: begins with none of the prompts of `prompts`; is it the file that was run?")
        prompt = text[:end]
    else:
        match = _SPOKEN.match(text) or _SENTENCE.match(text) or _LINE.match(text)
        prompt = match.group() if match else ""
    return Response(origin, prompt, text[len(prompt) :], is_raw=True)


def _summary(origin: str, text: str) -> Response:
    goal = re.search(r"(?m)^Goal: (.+)$", text)
    if goal is None:
        raise InputError(f"{origin}: a PAIR summary without its goal")
    example = text.partition("Example Jailbreak RESPONSE:")[2].strip()
    return Response(origin, goal.group(1), example, jailbroken="No jailbreaks achieved" not in text)


def _end_of(prompt: str, text: str) -> int | None:
    """Return where `text` goes on after `prompt`, if it begins with it.

    White space doesn't count: a tokenizer's decoding changes it. It belongs to the prompt as far as the prompt has it.
    """
    at = 0
    for character in prompt:
        if character.isspace():
            continue
        while at < len(text) and text[at].isspace():
            at += 1
        if text[at : at + 1] != character:
            return None
        at += 1
    blank = len(prompt) - len(prompt.rstrip())
    while blank and at < len(text) and text[at].isspace():
        at, blank = at + 1, blank - 1
    return at


def _read_prompts(path: Path) -> list[str]:
    """Return the prompts of a file, the longest first: one may begin another."""
    found = [
        value if isinstance(value, str) else read_text(Row(origin, value), PROMPT_COLUMNS, may_be_empty=True)
        for origin, value in _values(path)
    ]
    return sorted(filter(str.strip, found), key=len, reverse=True)
