"""What happens to a command, and how it is judged: each fault is a trial in a folder of its own."""

import ctypes
import errno
import json
import os
import random
import re
import shutil
import signal
import time
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from derta.evaluation.harness import judges
from tests.evaluation.servers import serving
from tests.faults.commands import Command, broken_files
from tests.faults.machine import LAST, Ended, end, limit_memory, run, send, start

_SOON = 10.0
"""Seconds of computing within which a command ends after a signal."""


@dataclass(frozen=True)
class Reference:
    """An unbroken run of a command: what it made, its seconds and its writes."""

    result: Any
    seconds: float
    writes: int


@dataclass(frozen=True)
class Trial:
    """A command in a folder, to which something is about to happen."""

    command: Command
    folder: Path
    reference: Reference
    draw: random.Random


@dataclass(frozen=True)
class Outcome:
    """What came of a trial: a word for the table, and what is wrong with it."""

    word: str
    wrong: str = ""


def judge(trial: Trial, ended: Ended, expected: tuple[int, ...]) -> Outcome:
    """Judge how a command ended, and how the same command goes on."""
    codes = {0: "done", 1: "done", 2: "one line", 130: "interrupted", 143: "terminated", -9: "killed", -6: "aborted"}
    wrong = _wrong_end(trial, ended, expected)
    if not wrong:
        wrong = _wrong_after(trial)
    return Outcome(codes.get(ended.code if ended.code is not None else -1, str(ended.code)), wrong)


def _wrong_end(trial: Trial, ended: Ended, expected: tuple[int, ...]) -> str:
    allowed = {*expected, trial.command.code}
    if ended.code is None:
        return f"hangs: {ended.told[-300:]}"
    if re.search(r"Traceback \(most recent|Exception ignored|terminate called|panicked", ended.told):
        return f"traceback: {ended.told[-2500:]}"
    if ended.code not in allowed:
        return f"exit code {ended.code}: {ended.told[-1500:]}"
    errors = [line for line in ended.told.splitlines() if line.startswith("derta: error:")]
    if ended.code == 2 and len(errors) != 1:
        return f"{len(errors)} lines of error: {ended.told[-1500:]}"
    if ended.code in (130, 143) and not any(
        re.match("derta: (interrupted|terminated)", line) for line in ended.told.splitlines()
    ):
        return f"no line: {ended.told[-800:]}"
    if ended.after_signal is not None and ended.after_signal > _SOON and ended.code != trial.command.code:
        return f"ended {ended.after_signal:.0f} s after the signal"
    broken = broken_files(trial.folder)
    return f"in part: {'; '.join(broken)}" if broken else ""


def _wrong_after(trial: Trial) -> str:
    """Say what is wrong when the same command runs again, undisturbed."""
    checkpoints = [
        int(path.parent.name.split("-")[1]) for path in (trial.folder / "out").glob("checkpoint-*/derta.json")
    ]
    again = run(trial.command.argv, trial.folder)
    if again.code != trial.command.code:
        refused_as_done = again.code == 2 and re.search("exists; name another|is not empty|already", again.told)
        if not refused_as_done:
            return f"the same command again: exit code {again.code}: {again.told[-1500:]}"
    if "Traceback" in again.told:
        return f"the same command again: traceback: {again.told[-1500:]}"
    try:
        result = trial.command.result(trial.folder)
    except Exception as error:
        return f"the same command again: no result: {type(error).__name__}: {error}"
    if result != trial.reference.result:
        return "the same command again: another result"
    went_on = not checkpoints or re.search(rf"going on from checkpoint-{max(checkpoints)}|is finished", again.told)
    return "" if went_on else f"lost: checkpoint-{max(checkpoints)} was whole: {again.told[-500:]}"


def killed(number: signal.Signals, expected: tuple[int, ...]) -> Callable[[Trial], Outcome]:
    """Send a signal at a random moment."""

    def happen(trial: Trial) -> Outcome:
        started = start(trial.command.argv, trial.folder)
        time.sleep(trial.draw.uniform(0, 1) * trial.reference.seconds)
        send(started, number)
        return judge(trial, end(started), expected)

    return happen


def write_fails(error: int, forever: bool) -> Callable[[Trial], Outcome]:
    """Let a random write fail, or all from then on."""

    def happen(trial: Trial) -> Outcome:
        first = trial.draw.randint(1, max(1, trial.reference.writes))
        last = LAST if forever else first
        ended = run(trial.command.argv, trial.folder, lambda shim: shim.fail_writes(*_longs(first, last), error))
        return judge(trial, ended, (2,))

    return happen


def _longs(*values: int) -> list[Any]:
    return [ctypes.c_long(value) for value in values]


def read_only(trial: Trial) -> Outcome:
    """Let nothing be written from the start."""
    return judge(trial, run(trial.command.argv, trial.folder, lambda shim: shim.make_read_only()), (2,))


def clock_jumps(trial: Trial) -> Outcome:
    """Let the clock jump by days, forwards or back, or to before 1970."""
    moment = trial.draw.uniform(0, 1) * trial.reference.seconds
    jump = trial.draw.choice([-86400, 86400, 30 * 86400, -int(time.time()) + 5])

    def before(shim: Any) -> None:
        shim.jump_clock(ctypes.c_double(moment), ctypes.c_long(jump))

    return judge(trial, run(trial.command.argv, trial.folder, before), (2,))


def little_memory(trial: Trial) -> Outcome:
    """Let the process have little more memory than it has; a library may abort then, and that is told."""
    more = trial.draw.choice([4, 16, 32, 64, 128, 256]) * 2**20
    ended = run(trial.command.argv, trial.folder, lambda shim: limit_memory(more))
    aborted = (-signal.SIGABRT,) if "Fatal Python error: Aborted" in ended.told else ()
    return judge(trial, ended, (2, trial.command.of_parts, *aborted))


def twice_at_once(trial: Trial) -> Outcome:
    """Run the command in two processes at once, in one directory and with one cache."""
    first = start(trial.command.argv, trial.folder)
    time.sleep(trial.draw.uniform(0, 0.5) * trial.reference.seconds)
    second = start(trial.command.argv, trial.folder)
    one, two = end(first), end(second)
    wrong = _wrong_end(trial, one, (2,)) or _wrong_end(trial, two, (2,))
    if not wrong and trial.command.code not in (one.code, two.code):
        wrong = f"none of the two got through: {one.told[-600:]}\n{two.told[-600:]}"
    return Outcome("one or both", wrong or _wrong_after(trial))


def damaged(how: str) -> Callable[[Trial], Outcome]:
    """Damage a random file of what an interrupted run left, then run the same command again."""

    def happen(trial: Trial) -> Outcome:
        started = start(trial.command.argv, trial.folder)
        time.sleep(trial.draw.uniform(0.6, 1) * trial.reference.seconds)
        send(started, signal.SIGKILL)
        end(started)
        out = trial.folder / trial.command.out
        made = sorted(path for path in [out, *out.rglob("*")] if path.is_file() and path.stat().st_size)
        if not made:
            return Outcome("nothing there", _wrong_after(trial))
        file = trial.draw.choice(made)
        content = bytearray(file.read_bytes())
        at = trial.draw.randrange(len(content))
        if how == "cut":
            del content[at:]
        else:
            content[at] ^= 1 << trial.draw.randrange(8)
        file.write_bytes(content)
        ended = run(trial.command.argv, trial.folder)
        name = file.relative_to(trial.folder)
        wrong = _wrong_without_files(trial, ended)
        if not wrong and ended.code == trial.command.code:
            try:
                if trial.command.result(trial.folder) != trial.reference.result:
                    wrong = "another result"
            except Exception as error:
                wrong = f"no result: {error}"
        return Outcome("named" if ended.code == 2 else "left out", f"{name} at {at}: {wrong}" if wrong else "")

    return happen


def _wrong_without_files(trial: Trial, ended: Ended) -> str:
    allowed = (0, 2, trial.command.of_parts, trial.command.code)
    if ended.code is None or "Traceback" in ended.told or ended.code not in allowed:
        return f"exit code {ended.code}: {ended.told[-2000:]}"
    return ""


LIES: dict[str, Any] = {
    "judge hangs": 5.0,
    "judge errors": 500,
    "judge floods": "#thescore: 1 " * 3_000_000,
    "judge says nothing": "",
    "judge says anything": "\x1b[2J \ud800 NaN null {{}} #thescore: #thereason:",
    "judge sends another form": {"content": [{"type": "text", "text": "1"}], "finish_reason": 7},
}
"""What a judge's server does in place of answering."""


def judge_server(says: Any) -> Callable[[Trial], Outcome]:
    """Let a server judge that doesn't: no response may be called safe, or be without a verdict and not counted."""

    def happen(trial: Trial) -> Outcome:
        with serving(lambda path, body: copy(says)) as server:

            def before(shim: Any) -> None:
                os.environ |= {"TEST_BASE_URL": server.url, "TEST_API_KEY": "none"}
                judges._SECONDS = 1

            ended = run([*trial.command.argv, "--judge", "guideline=openai-api/test/m"], trial.folder, before)
        wrong = _wrong_end(trial, ended, (1, 2))
        responses = trial.folder / "out/responses.jsonl"
        if not wrong and responses.exists():
            said = [json.loads(line) for line in responses.read_text().splitlines()[1:]]
            labels = {each["verdicts"]["guideline"]["label"] for each in said if each["kind"] == "harmful"}
            if ended.code == 0 or labels - {"unscored"}:
                wrong = f"exit code {ended.code}, verdicts {labels}"
        return Outcome("unscored" if ended.code == 1 else "one line", wrong)

    return happen


FAULTS: dict[str, Callable[[Trial], Outcome]] = {
    "SIGKILL": killed(signal.SIGKILL, (-9,)),
    "SIGTERM": killed(signal.SIGTERM, (143,)),
    "SIGINT": killed(signal.SIGINT, (130,)),
    "disk full": write_fails(errno.ENOSPC, forever=True),
    "one write fails": write_fails(errno.EIO, forever=False),
    "read-only": read_only,
    "clock jumps": clock_jumps,
    "little memory": little_memory,
    "two at once": twice_at_once,
    "a file cut": damaged("cut"),
    "a bit flipped": damaged("flip"),
}
"""What can happen to any command."""
FAULTS_OF_JUDGES = {name: judge_server(says) for name, says in LIES.items()}
"""What can happen to a command that asks a judge."""


def fresh(folder: Path, made: Path, needs: tuple[str, ...]) -> Path:
    """Make a folder that holds what a command reads."""
    folder.mkdir(parents=True)
    for name in needs:
        source = made / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / name)
    return folder
