"""Examples: one row of training data in canonical form, and the checks that make a row one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict, cast

from derta.errors import InputError, did_you_mean

Role = Literal["system", "user", "assistant"]
ROLES: tuple[Role, ...] = ("system", "user", "assistant")


class Message(TypedDict):
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True)
class Example:
    """One example to train on. Which responses it has makes it one of four kinds.

    | kind | chosen | rejected | harmful_prefix |
    |---|---|---|---|
    | triple | text | text | None |
    | helpful example | text | None | None |
    | safe response after a fixed harmful prefix ("" = at its start) | text | None | text |
    | harmful response for RTO only | None | text | None |

    The last two come from the DeRTa release's rows, which hold the two halves of a triple apart.

    Attributes:
        prompt: Holds the conversation up to the response; its last turn is the user's.
        chosen: Is the safe or helpful response.
        rejected: Is the harmful response r̂, which is read and never a target.
        harmful_prefix: Is the part of a harmful response that stands before `chosen`.
        origin: Says where the row was read, as "file:line" or "name:row".
        raw: Says that the prompt's one turn is the beginning of a text, which nothing surrounds. No file has such rows:
            contexts make them.
        begun: Is text that begins the answer: it is read like the prompt, and `chosen` follows. As `raw`.
    """

    prompt: list[Message]
    chosen: str | None
    rejected: str | None
    harmful_prefix: str | None
    origin: str
    raw: bool = False
    begun: str = ""

    @property
    def is_triple(self) -> bool:
        """Whether it has a safe and a harmful response."""
        return self.chosen is not None and self.rejected is not None

    @property
    def is_helpful(self) -> bool:
        """Whether it is a helpful example: ordinary next-token MLE and nothing else."""
        return self.chosen is not None and self.rejected is None and self.harmful_prefix is None


def as_example(row: Mapping[str, Any], origin: str | None = None) -> Example:
    """Normalise one canonical row, plain or conversational, to an `Example`.

    A conversational row may leave `prompt` out: it is then what `chosen` and `rejected` share (TRL's implicit prompt).

    Args:
        row: Has `prompt`, `chosen`, `rejected` and `harmful_prefix`, as far as its kind needs them.
        origin: Says where the row was read; defaults to the row's own `origin`.

    Raises:
        InputError: A field is missing, empty, not text, or contradicts another one.
    """
    place = origin or str(row.get("origin") or "row")
    if "chosen" not in row:
        raise InputError(f"{place}: chosen is missing; a row needs a safe or helpful response")
    prompt, chosen, rejected = _conversation(row, place)
    harmful_prefix = row.get("harmful_prefix")
    if harmful_prefix is not None and harmful_prefix != "":
        harmful_prefix = checked_text(harmful_prefix, "harmful_prefix", place)
    _check_kind(chosen, rejected, harmful_prefix, place)
    return Example(prompt, chosen, rejected, harmful_prefix, place)


def canonical_row(example: Example) -> dict[str, Any]:
    """Return the row whose `as_example` is `example`: in plain strings, or as messages where the prompt has turns."""
    conversational = len(example.prompt) > 1
    prompt: Any = example.prompt if conversational else example.prompt[-1]["content"]
    return {
        "prompt": prompt,
        "chosen": _response(example.chosen, conversational),
        "rejected": _response(example.rejected, conversational),
        "harmful_prefix": example.harmful_prefix,
        "origin": example.origin,
    }


def _response(text: str | None, conversational: bool) -> Any:
    return [{"role": "assistant", "content": text}] if conversational and text is not None else text


def _conversation(row: Mapping[str, Any], place: str) -> tuple[list[Message], str | None, str | None]:
    """Split a row into its prompt and its two responses, whichever of TRL's forms it has."""
    responses = {column: _response_value(row.get(column), column, place) for column in ("chosen", "rejected")}
    prompt = row.get("prompt")
    if prompt is None:
        turns = _implicit_prompt(responses["chosen"], responses["rejected"], place)
    elif isinstance(prompt, list):
        turns = _messages(prompt, "prompt", place)
    else:
        turns = [{"role": "user", "content": checked_text(prompt, "prompt", place)}]
    if turns[-1]["role"] != "user":
        raise InputError(f"{place}: prompt ends with the {turns[-1]['role']}'s turn; it must end with the user's")
    chosen = _last_turn(responses["chosen"], turns, "chosen", place)
    return turns, chosen, _last_turn(responses["rejected"], turns, "rejected", place)


def _response_value(value: Any, column: str, place: str) -> str | list[Message] | None:
    if value is None:
        return None
    return _messages(value, column, place) if isinstance(value, list) else checked_text(value, column, place)


def _implicit_prompt(
    chosen: str | list[Message] | None, rejected: str | list[Message] | None, place: str
) -> list[Message]:
    if not isinstance(chosen, list) or not isinstance(rejected, list):
        raise InputError(
            f"{place}: prompt is missing; only a row whose chosen and rejected are both whole conversations "
            f"can do without it"
        )
    shared = 0
    while shared < min(len(chosen), len(rejected)) and chosen[shared] == rejected[shared]:
        shared += 1
    if shared == len(chosen) == len(rejected):
        raise InputError(
            f"{place}: chosen and rejected are the same conversation; they must end in different responses"
        )
    if shared == 0:
        raise InputError(f"{place}: prompt is missing, and chosen and rejected don't begin with the same turns")
    return chosen[:shared]


def _last_turn(response: str | list[Message] | None, prompt: list[Message], column: str, place: str) -> str | None:
    """Return the response's text; a whole conversation must be the prompt and one turn of the assistant's."""
    if not isinstance(response, list):
        return response
    if len(response) > 1 and response[: len(prompt)] == prompt:
        response = response[len(prompt) :]
    if len(response) != 1 or response[0]["role"] != "assistant":
        raise InputError(
            f"{place}: {column} must be one message of the assistant's, alone or after the prompt's messages"
        )
    return response[0]["content"]


def _messages(value: Sequence[Any], column: str, place: str) -> list[Message]:
    if not value:
        raise InputError(f"{place}: {column} is empty; it needs at least one message")
    return [_message(message, f"{column}[{index}]", place) for index, message in enumerate(value)]


def _message(value: Any, field: str, place: str) -> Message:
    if not isinstance(value, Mapping):
        raise InputError(f"{place}: {field} must be a message with role and content, not {type_name(value)}")
    role = value.get("role")
    if role not in ROLES:
        hint = did_you_mean(role, ROLES) if isinstance(role, str) else ""
        raise InputError(f"{place}: {field}.role must be one of {', '.join(ROLES)}, not {_shorten(role)}{hint}")
    return {"role": cast("Role", role), "content": checked_text(value.get("content"), f"{field}.content", place)}


def checked_text(value: Any, field: str, place: str) -> str:
    """Return `value` if it is text to train on, or raise an `InputError` that names `place` and `field`."""
    if not isinstance(value, str):
        raise InputError(f"{place}: {field} must be text, not {type_name(value)}")
    if not value.strip():
        raise InputError(f"{place}: {field} is empty; give it text or drop the row")
    return whole_text(value, f"{place}: {field}")


def whole_text(text: str, place: str) -> str:
    """Return a text that can be written.

    Raises:
        InputError: It holds half a surrogate pair; the message begins with `place`.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{place} has half a surrogate pair at character {error.start}; repair it") from None
    return text


def _check_kind(chosen: str | None, rejected: str | None, harmful_prefix: str | None, place: str) -> None:
    if chosen is None and rejected is None:
        raise InputError(f"{place}: chosen and rejected are both null; a row needs a response")
    if chosen is not None and rejected is not None and chosen.strip() == rejected.strip():
        raise InputError(f"{place}: chosen and rejected are the same text; drop the row or repair one of them")
    if harmful_prefix is not None and rejected is not None:
        raise InputError(f"{place}: harmful_prefix and rejected exclude each other; keep one of them")


def type_name(value: Any) -> str:
    """Name the type of a value as JSON would, for messages."""
    names = {str: "text", bool: "a boolean", int: "a number", float: "a number", type(None): "null"}
    if isinstance(value, Mapping):
        return "an object"
    return names.get(type(value), "a list" if isinstance(value, list) else type(value).__name__)


def _shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
