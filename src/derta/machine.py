"""Failures of the machine: a full disk, a folder that can't be written to, too little memory."""

import errno
import os
import re
import sqlite3
from collections.abc import Iterator

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
