"""Errors that a user can mend, told in one line: a wrong input, and failures of the machine."""

import difflib
import errno
import os
import re
import sqlite3
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError

_MENDS = {
    errno.ENOSPC: "free some space and run the same command again",
    errno.EDQUOT: "free some space and run the same command again",
    errno.EROFS: "name a folder that can be written to",
    errno.EACCES: "name a folder that can be written to",
    errno.EPERM: "name a folder that can be written to",
    errno.EMFILE: "raise the limit with ulimit -n",
}
_MEMORY = re.compile(
    r"allocate memory|out of memory|bad_alloc|DefaultCPUAllocator|ThreadPoolBuildError|can't start new thread", re.I
)
# Rust's own errors say so in their text; so do torch's archives, without the number.
_OF_RUST = re.compile(r"\(os error (\d+)\)")
_OF_TORCH = re.compile(r"inline_container|PytorchStreamWriter|file write failed|iostream error", re.I)


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


def machine_failure(error: BaseException) -> str | None:
    """Return in one line what failed on this machine, and the mend; `None` if that isn't what the error says.

    Libraries in other languages raise errors of their own when a write fails: those are known by what they say.
    """
    for each in _chain(error):
        text = str(each)
        if isinstance(each, MemoryError) or _MEMORY.search(text):
            return "out of memory; free some, or let the command take less of it at once"
        if isinstance(each, OSError) and each.errno is not None:
            return _told(each.errno, each.filename2 or each.filename)
        if found := _OF_RUST.search(text):
            return _told(int(found[1]), None)
        if isinstance(each, sqlite3.OperationalError) or (_OF_TORCH.search(text) and isinstance(each, RuntimeError)):
            return f"a file can't be written: {' '.join(text.split())}; free some space and run the same command again"
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what it came from, the nearest first."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        each = waiting.pop(0)
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        if isinstance(each, BaseExceptionGroup):
            waiting += each.exceptions
        waiting += [each.__cause__, each.__context__]


def _told(number: int, file: object) -> str:
    where = f"{os.fsdecode(file)}: " if isinstance(file, str | bytes | os.PathLike) else ""
    mend = _MENDS.get(number)
    return f"{where}{os.strerror(number)}{f'; {mend}' if mend else ''}"


def was_interrupted(error: BaseException) -> bool:
    """Whether an error came of an interrupt, which libraries turn into errors of their own."""
    return any(isinstance(each, KeyboardInterrupt) for each in _chain(error))
