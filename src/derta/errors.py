"""Errors that a user can mend: the command line prints them as one line and exits with code 2."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """The input or the configuration is wrong.

    The message is one line that names the place (file and line, or field), what is wrong, and the mend. A field stands
    in backticks: the command line shows it as the option that sets it.
    """


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """Return `" (did you mean 'x'?)"` for the option nearest to `word`, or an empty string if none is near."""
    nearest = difflib.get_close_matches(word, list(options), n=1, cutoff=0.6)
    return f" (did you mean {nearest[0]!r}?)" if nearest else ""


def first_line(error: Exception) -> str:
    """Return the first line of an error's message that says anything, or the error's name."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
