"""Failures of the machine are told in a line, whichever library met them."""

import errno
import os
import sqlite3

import pytest

from derta import cli
from derta.errors import machine_failure, was_interrupted


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "out/a"), "out/a: No space left on device; free some space"),
        (OSError(errno.EROFS, "x", "out"), "out: Read-only file system; name a folder that can be written to"),
        (MemoryError(), "out of memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), "out of memory"),
        (Exception("I/O error: Input/output error (os error 5) at path x"), "Input/output error"),
        (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0"), "a file can't be written"),
        (RuntimeError("basic_ios::clear: iostream error"), "a file can't be written"),
        (sqlite3.OperationalError("database or disk is full"), "a file can't be written: database or disk is full"),
        (ExceptionGroup("many", [ValueError("x"), MemoryError()]), "out of memory"),
    ],
)
def test_it_is_known_by_what_it_says(error: Exception, told: str) -> None:
    assert machine_failure(error).startswith(told)
    wrapped = RuntimeError("a library's own")
    wrapped.__cause__ = error
    assert machine_failure(wrapped).startswith(told)


def test_a_mistake_in_the_code_is_none() -> None:
    for error in (ValueError("no"), KeyError("x"), RuntimeError("shapes differ")):
        assert machine_failure(error) is None


def test_an_interrupt_that_became_another_error_is_one() -> None:
    def turn_it_into_another() -> None:
        try:
            raise KeyboardInterrupt
        finally:
            raise ValueError("what a library makes of it")

    with pytest.raises(ValueError, match="library") as caught:
        turn_it_into_another()
    assert was_interrupted(caught.value)
    assert not was_interrupted(ValueError())


def test_the_command_line_tells_it_in_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(error: BaseException) -> int:
        def fail(*given: object) -> int:
            raise error

        monkeypatch.setattr(cli, "_run", fail)
        return cli.main(["gate"])

    assert run(OSError(errno.ENOSPC, "", "a\x1b[2J")) == 2
    assert capsys.readouterr().err == (
        "derta: error: a\\x1b[2J: No space left on device; free some space and run the same command again\n"
    )
    assert run(KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == "derta: interrupted\n"
    with pytest.raises(ZeroDivisionError):
        run(ZeroDivisionError())
