"""The terminal: bars that leave nothing behind, a few lines in a pipe, and libraries that are kept aside."""

import logging
import os
import pty
import subprocess
import sys
import warnings
from itertools import pairwise
from pathlib import Path

import pytest

from derta.terminal import Pace, Screen, clock, show_messages


class Clock:
    """Time that passes when it is told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Clock:
    time = Clock()
    monkeypatch.setattr("derta.terminal.time.monotonic", time)
    return time


@pytest.fixture
def screen() -> Screen:
    screen = Screen()
    screen.quiet = False
    return screen


def run(code: str, directory: Path) -> subprocess.CompletedProcess[str]:
    code = f"import os, sys, warnings\nfrom pathlib import Path\nfrom derta.terminal import screen\n{code}"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=directory)


def on_a_terminal(code: str) -> str:
    """Return what a program writes to a terminal, escape sequences and all."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "80"}
    code = f"import time\nfrom derta.terminal import screen\nscreen.quiet = False\n{code}"
    with subprocess.Popen([sys.executable, "-c", code], stdout=theirs, stderr=theirs, stdin=theirs, env=environment):
        os.close(theirs)
        written = b""
        while True:
            try:
                more = os.read(ours, 4096)
            except OSError:  # Linux says so at the end
                break
            if not more:
                break
            written += more
    os.close(ours)
    return written.decode()


@pytest.mark.parametrize(("seconds", "shown"), [(0, "0:00"), (83.4, "1:23"), (3600 * 2 + 83, "2:01:23")])
def test_times_are_written_as_on_a_clock(seconds: float, shown: str) -> None:
    assert clock(seconds) == shown


def test_a_long_work_is_worth_five_lines(time: Clock) -> None:
    pace, lines = Pace(1000), 0
    for _ in range(1000):
        time.now += 0.1
        lines += pace.advance(1)
    assert lines in (4, 5)


def test_a_short_work_is_worth_none(time: Clock) -> None:
    pace = Pace(1000)
    for _ in range(1000):
        time.now += 0.001
        assert not pace.advance(1)


def test_a_very_long_work_is_never_silent_for_long(time: Clock) -> None:
    pace, told = Pace(1_000_000), []
    for _ in range(200):
        time.now += 60
        told += [time.now] if pace.advance(1) else []
    assert len(told) > 30
    assert max(after - before for before, after in pairwise(told)) <= 400


def test_the_time_left_is_that_of_the_rest(time: Clock) -> None:
    pace = Pace(100)
    time.now = 30.0
    pace.advance(25)
    assert pace.left == "1:30 left"
    pace.advance(75)
    assert pace.left == ""


def test_a_bar_without_a_terminal_is_lines_with_counts(
    screen: Screen, time: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with screen.bar("judging", 20) as advance:
        for _ in range(20):
            time.now += 10
            advance(1)
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert lines[0] == "judging: 4 of 20, 2:40 left"
    assert lines[-1] == "judging: 20 of 20"


def test_a_quiet_screen_shows_nothing(screen: Screen, time: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    screen.quiet = True
    with screen.bar("judging", 2) as advance:
        time.now += 1000
        advance(2)
    screen.say("done")
    assert capsys.readouterr() == ("", "")


def test_libraries_go_to_the_log_and_lines_to_the_screen(tmp_path: Path) -> None:
    done = run(
        "screen.quiet = False\n"
        "with screen.libraries_aside():\n"
        "    print('early'); os.write(2, b'from C\\n')\n"
        "    screen.log_to(Path('.'))\n"
        "    warnings.warn('a warning'); os.system('echo from a child')\n"
        "    screen.say('ours'); screen.say('ours too', errors=True)\n"
        "print('after')",
        tmp_path,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("ours\nafter\n", "ours too\n", 0)
    log = (tmp_path / "log.txt").read_text()
    for said in ("early\n", "from C\n", "UserWarning: a warning", "from a child\n"):
        assert said in log


def test_a_second_run_goes_on_in_the_log(tmp_path: Path) -> None:
    for word in ("first", "second"):
        run(f"with screen.libraries_aside():\n    screen.log_to(Path('.')); print('{word}')", tmp_path)
    assert (tmp_path / "log.txt").read_text() == "first\nsecond\n"


def test_a_crash_before_there_is_a_log_shows_what_libraries_said(tmp_path: Path) -> None:
    done = run("with screen.libraries_aside():\n    print('the cause')\n    raise RuntimeError('crash')", tmp_path)
    assert done.stdout == ""
    assert "the cause\n" in done.stderr
    assert "RuntimeError: crash" in done.stderr


def test_bad_input_stays_one_line(tmp_path: Path) -> None:
    done = run(
        "from derta.errors import InputError\n"
        "try:\n"
        "    with screen.libraries_aside():\n"
        "        print('chatter')\n"
        "        raise InputError('wrong')\n"
        "except InputError as error: print(error)",
        tmp_path,
    )
    assert (done.stdout, done.stderr) == ("wrong\n", "")


def test_under_a_test_that_captures_it_libraries_are_kept_aside_too(
    screen: Screen, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with screen.libraries_aside():
        print("chatter")
        screen.say("ours")
        screen.log_to(tmp_path)
        print("more", file=sys.stderr)
    print("after")
    assert capsys.readouterr() == ("ours\nafter\n", "")
    assert (tmp_path / "log.txt").read_text() == "chatter\nmore\n"


def test_bars_on_a_terminal_leave_only_the_lines_behind() -> None:
    written = on_a_terminal(
        "with screen.libraries_aside(), screen.bar('outer', 2) as outer, screen.bar('inner', 4) as inner:\n"
        "    print('chatter')\n"
        "    for _ in range(4): inner(1); time.sleep(0.1)\n"
        "    screen.say('a line that stays')\n"
        "screen.say('done')"
    )
    assert "outer" in written
    assert "inner" in written
    assert "chatter" not in written
    assert "a line that stays" in written
    # After the bars are erased (a line up, erase, ...) only the last line is written.
    assert written.rstrip().endswith("done")
    assert written.rindex("\x1b[2K") > written.rindex("inner")


def test_what_libraries_say_does_not_move_the_cursor() -> None:
    show_messages()
    record = logging.getLogRecordFactory()("x", logging.WARNING, "", 1, "a\x1b[2J %s\nb", ("\x07",), None)
    assert record.getMessage() == "a\\x1b[2J \\x07\nb"
    assert "\x1b" not in warnings.formatwarning("\x1b[2J", UserWarning, "a.py", 1)
