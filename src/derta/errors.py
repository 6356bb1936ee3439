"""Errors that a user can mend: the command line prints them as one line and exits with code 2."""

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class InputError(ValueError):
    """The input or the configuration is wrong.

    The message is one line that names the place (file and line, or field), what is wrong, and the mend. A field stands
    in backticks: the command line shows it as the option that sets it.
    """


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """Return `" (did you mean 'x'?)"` for the option nearest to `word`, or an empty string if none is near."""
    nearest = difflib.get_close_matches(word, list(options), n=1, cutoff=0.6)
    return f" (did you mean {nearest[0]!r}?)" if nearest else ""


def first_invalid(error: "ValidationError") -> str:
    """Return what pydantic found wrong first: the field, and what is wrong with it."""
    first = error.errors(include_url=False, include_input=False)[0]
    # Pydantic names the kinds that a value could have been of, too.
    kinds = ("list[", "dict[", "literal[", "function-")
    field = ".".join(str(part) for part in first["loc"] if not str(part).startswith(kinds))
    said = first["msg"].removeprefix("Value error, ")
    said = said[:1].lower() + said[1:]
    return f"{field}: {said}" if field else said


def first_line(error: Exception) -> str:
    """Return the first line of an error's message that says anything, or the error's name."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
