"""A command in a fork of its own, and what can happen to it: signals, full and read-only disks, clocks, memory.

What the commands import is imported once, before the forks; in each, `derta.cli.main` runs as it does from a shell.
"""

import ctypes
import os
import resource
import select
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

SHIM = Path(__file__).with_name("shim.c")
LAST = 2**62
_SECONDS = 600.0
"""A command that takes longer hangs, on a busy machine too."""


def preload(folder: Path) -> None:
    """Start this program again with the shim before libc, if it isn't there yet."""
    if "DERTA_FAULTS" in os.environ:
        return
    library = folder / "shim.so"
    if shutil.which("gcc") is None:
        raise SystemExit("derta's faults: no gcc here, which builds what lets writes fail")
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", str(library), str(SHIM), "-ldl"], check=True)
    environment = {**os.environ, "LD_PRELOAD": str(library), "DERTA_FAULTS": str(folder)}
    os.execve(sys.executable, [sys.executable, "-m", "tests.faults", *sys.argv[1:]], environment)


@dataclass
class Started:
    """A command at work.

    Attributes:
        process: Its process id.
        began: When it began, on the monotonic clock.
        told: Its standard output and error.
        counted: The pipe that tells how many writes it did.
        signalled: The seconds it had computed when it was sent a signal.
    """

    process: int
    began: float
    told: Path
    counted: int
    signalled: float | None = None


@dataclass(frozen=True)
class Ended:
    """What became of a command.

    Attributes:
        code: Its exit code; negative for a signal, `None` if it hung.
        told: Its standard output and error.
        seconds: How long it took.
        writes: How many writes it did, if it came to its end.
        after_signal: How long it computed after the signal.
    """

    code: int | None
    told: str
    seconds: float
    writes: int
    after_signal: float | None = None


def start(argv: Sequence[str], folder: Path, before: Callable[[ctypes.CDLL], None] | None = None) -> Started:
    """Run a command in a fork, in `folder`; `before` is called in it, with the shim."""
    told = folder.parent / f"{folder.name}.told-{time.monotonic_ns()}"
    ready, says_ready = os.pipe()
    counted, says_counted = os.pipe()
    process = os.fork()
    if process == 0:
        code = 70
        try:
            output = os.open(told, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            for stream in (1, 2):
                os.dup2(output, stream)
            os.chdir(folder)
            _own_places(folder)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            shim = ctypes.CDLL(None)
            shim.count_below(f"{folder}/".encode())
            if before is not None:
                before(shim)
            os.write(says_ready, b".")
            try:
                from derta.cli import main

                code = main(argv)
            except SystemExit as ended:
                code = ended.code if isinstance(ended.code, int) else 1
            except BaseException:
                traceback.print_exc()
                code = 1
            shim.fail_writes(ctypes.c_long(0), ctypes.c_long(0), 0)
            os.write(says_counted, str(shim.writes_counted()).encode())
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)
    os.close(says_ready)
    os.close(says_counted)
    os.read(ready, 1)
    os.close(ready)
    return Started(process, time.monotonic(), told, counted)


def _own_places(folder: Path) -> None:
    """Put what libraries keep for a user below the folder."""
    import tempfile

    import datasets.config

    os.environ["XDG_DATA_HOME"] = os.environ["XDG_CACHE_HOME"] = str(folder / "home")
    tempfile.tempdir = None
    os.environ["TMPDIR"] = str(folder / "tmp")
    (folder / "tmp").mkdir(exist_ok=True)
    datasets.config.HF_DATASETS_CACHE = folder / "cache"


def send(started: Started, number: signal.Signals) -> None:
    """Send a signal."""
    with suppress(OSError):
        started.signalled = _processor_seconds(started.process)
    os.kill(started.process, number)


def end(started: Started, seconds: float = _SECONDS) -> Ended:
    """Wait for a command; one that hangs is killed."""
    watched = os.pidfd_open(started.process)
    ended, _, _ = select.select([watched], [], [], max(0.0, started.began + seconds - time.monotonic()))
    now = time.monotonic()
    if not ended:
        os.kill(started.process, signal.SIGKILL)
    _, status, used = os.wait4(started.process, 0)
    os.close(watched)
    writes = int(os.read(started.counted, 20) or 0)
    os.close(started.counted)
    told = started.told.read_text("utf-8", errors="replace")
    started.told.unlink()
    code = os.waitstatus_to_exitcode(status) if ended else None
    after = used.ru_utime + used.ru_stime - started.signalled if started.signalled is not None else None
    return Ended(code, told, now - started.began, writes, after)


def _processor_seconds(process: int) -> float:
    """What a process and its children have computed so far: on a busy machine a second on the clock says little."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    own = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    tasks = Path(f"/proc/{process}/task").glob("*/children")
    return own + sum(_processor_seconds(int(child)) for task in tasks for child in task.read_text().split())


def run(argv: Sequence[str], folder: Path, before: Callable[[ctypes.CDLL], None] | None = None) -> Ended:
    """Run a command to its end."""
    return end(start(argv, folder, before))


def limit_memory(more: int) -> None:
    """Let this process have no more than so many bytes beyond what it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + more, resource.RLIM_INFINITY))
