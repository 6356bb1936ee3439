"""What a command shows while it works: lines that stay, bars that go, and a log for what libraries say.

Lines that stay go to standard output, bars and messages to standard error. A terminal gets bars with the time left;
where there is none, a bar is a few plain lines.
"""

import faulthandler
import logging
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO, Any, TextIO, cast

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, JustifyMethod, RenderableType, RenderResult
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from derta.errors import InputError, machine_failure, was_interrupted
from derta.redaction import redacted_text, visible_text

Advance = Callable[[int], None]
"""Takes the number of steps done since it was called before."""
LOG = "log.txt"
"""The file of a run directory in which libraries' messages and warnings are."""
_LINES = 5
_WIDE = 10_000
_NUMBER, _BETWEEN = len("[+100.0,"), 3
_LONGEST_SILENCE = 300.0
_SHORTEST_WORK = 5.0


class _Uncut(Console):
    """Cuts nothing off: what is wider than the terminal goes on in its next line."""

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*objects, **{"crop": False, **options})


class NumbersTable(Table):
    """A table that is whole in a narrow terminal: lines are broken, and no number is; nothing is cut off.

    With more columns than there is room for it is wider than the terminal.
    """

    def __init__(self) -> None:
        super().__init__(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)

    def add_columns(self, *headings: str, justify: JustifyMethod = "left") -> None:
        """Add columns with these headings."""
        for heading in headings:
            self.add_column(Text(heading), justify=justify, overflow="fold", min_width=_NUMBER)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        least = len(self.columns) * (_NUMBER + _BETWEEN)
        return super().__rich_console__(console, options.update(max_width=max(options.max_width, least)))


class Pace:
    """Decides when a work without a terminal is worth a line: at each fifth of it, and every five minutes.

    Work that is over in five seconds has no line at all.
    """

    def __init__(self, total: int | None) -> None:
        self.total = total
        self.done = 0
        self.began = self._told = time.monotonic()
        self._part = 0

    def advance(self, count: int) -> bool:
        """Take note of `count` more steps; returns whether to print a line now."""
        self.done += count
        now = time.monotonic()
        part = self.done * _LINES // self.total if self.total else 0
        due = now - self._told > _LONGEST_SILENCE or (part > self._part and now - self.began > _SHORTEST_WORK)
        if due:
            self._told, self._part = now, part
        return due

    @property
    def seconds(self) -> float:
        """The time since the work began."""
        return time.monotonic() - self.began

    @property
    def left(self) -> str:
        """The time left if the work goes on as it did, or an empty string where that can't be told."""
        if not self.total or not self.done or self.done >= self.total:
            return ""
        return f"{clock(self.seconds * (self.total - self.done) / self.done)} left"


def clock(seconds: float) -> str:
    """Write a time as `1:23` or `2:01:23`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Screen:
    """The terminal of the command that is running.

    Attributes:
        quiet: Keeps bars and lines off the terminal. The command line turns it off: a library keeps quiet.
    """

    def __init__(self) -> None:
        self.quiet = True
        self._log: _Log | None = None
        self._live: Live | None = None
        self._bars: Progress | None = None

    def console(self, errors: bool = False) -> Console:
        """Return a console on standard output or standard error, also while they are set aside.

        A pipe or a file has no width of its own, and the 80 columns that rich gives it are few for tables.
        """
        output, error = self._log.shown if self._log else (sys.stdout, sys.stderr)
        file = error if errors else output
        return _Uncut(file=file, highlight=False, width=None if file.isatty() else _WIDE)

    def say(self, text: str, style: str = "", errors: bool = False, always: bool = False) -> None:
        """Print a line that stays, above what goes; `errors`: on standard error; `always`: also where it is quiet."""
        if self.quiet and not always:
            return
        console = self.console(errors)
        if self._live is not None and console.is_terminal:
            console = self._live.console
        console.print(Text(text, style=style), soft_wrap=True)

    @contextmanager
    def bar(self, what: str, total: int | None = None) -> Iterator[Advance]:
        """Show how far a work is; what it gives is called with the number of steps done since the call before.

        Args:
            what: Names the work in a word or two.
            total: Counts its steps; `None` if nobody knows.
        """
        if self.quiet or not self.console(errors=True).is_terminal:
            pace = Pace(total)

            def advance(count: int) -> None:
                if pace.advance(count):
                    of = f" of {total:,}, {pace.left}" if total else ""
                    self.say(f"{what}: {pace.done:,}{of.rstrip(', ')}", errors=True)

            yield advance
            return
        with self._progress() if self._bars is None else nullcontext(self._bars) as bars:
            task = bars.add_task(what, total=total)
            try:
                yield lambda count: bars.advance(task, count)
            finally:
                bars.remove_task(task)

    @contextmanager
    def _progress(self) -> Iterator[Progress]:
        """Put bars on the terminal; those that begin before the first one ends go below it."""
        self._bars = progress_bars()
        try:
            with self.live(self._bars.get_renderable):
                yield self._bars
        finally:
            self._bars = None

    @contextmanager
    def live(self, render: Callable[[], RenderableType]) -> Iterator[bool]:
        """Keep what `render` returns on the terminal until the work is done; gives whether there is a terminal."""
        console = self.console(errors=True)
        if self.quiet or not console.is_terminal or self._live is not None:
            yield False
            return
        options: dict[str, Any] = {"transient": True, "redirect_stdout": False, "redirect_stderr": False}
        with Live(get_renderable=render, console=console, **options) as self._live:
            try:
                yield True
            finally:
                self._live = None

    @contextmanager
    def libraries_aside(self) -> Iterator[None]:
        """Keep what libraries print, log and warn off the screen; [`log_to`] says where it goes.

        Inside, print with [`say`] only: standard output and standard error are those of the libraries.
        """
        if self._log is not None:
            yield
            return
        with _Log() as self._log:
            try:
                yield
            finally:
                self._log = None

    def log_to(self, directory: Path) -> None:
        """Put what libraries said and will say into the `log.txt` of a directory, after what it holds."""
        if self._log is not None:
            self._log.move_to(directory / LOG)


def progress_bars(**options: Any) -> Progress:
    """Return bars with what is done, the time since the start, and the time left."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(compact=True),
    )
    return Progress(*columns, **options)


class _Log:
    """Standard output and error on their way to a file."""

    def __init__(self) -> None:
        self._file: IO[str] = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self._streams = sys.stdout, sys.stderr
        # Child processes and libraries in C write past Python: that is caught where the streams are the real ones.
        self._kept: dict[int, int] = {}
        self.shown: tuple[IO[str], IO[str]] = self._streams

    def __enter__(self) -> "_Log":
        self._flush()
        real = [_descriptor(stream) == number for number, stream in enumerate(self._streams, 1)]
        self._kept = {number: os.dup(number) for number, is_real in enumerate(real, 1) if is_real}
        self.shown = cast(
            tuple[IO[str], IO[str]],
            tuple(
                os.fdopen(os.dup(number), "w", encoding=stream.encoding, errors="replace") if is_real else stream
                for number, (stream, is_real) in enumerate(zip(self._streams, real, strict=True), 1)
            ),
        )
        # A library that aborts, without memory for example, takes its last words with it into the file.
        self._tells_aborts = not faulthandler.is_enabled() and _descriptor(self.shown[1]) is not None
        if self._tells_aborts:
            faulthandler.enable(self.shown[1])
        self._redirect()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, *others: object) -> None:
        self._flush()
        foreseen = error is None or isinstance(error, InputError) or was_interrupted(error) or machine_failure(error)
        unread = "" if foreseen else self._read_early()
        if self._tells_aborts:
            faulthandler.disable()
        for number, kept in self._kept.items():
            os.dup2(kept, number)
            os.close(kept)
            self.shown[number - 1].close()
        sys.stdout, sys.stderr = self._streams
        self._file.close()
        # A crash that nobody foresaw, before there is a log that tells of it.
        sys.stderr.write(unread)

    def move_to(self, path: Path) -> None:
        """Go on in a file that has a name, with what was written before it had one."""
        self._flush()
        told, before = self._read_early(), self._file
        self._file = path.open("a", encoding="utf-8", errors="replace")
        self._file.write(told)
        self._file.flush()
        self._redirect()
        before.close()

    def _read_early(self) -> str:
        """Return what was written before the log had a place."""
        if not self._file.readable():
            return ""
        self._file.seek(0)
        return self._file.read()

    def _redirect(self) -> None:
        for number in self._kept:
            os.dup2(self._file.fileno(), number)
        if 1 not in self._kept:
            sys.stdout = cast(TextIO, self._file)
        if 2 not in self._kept:
            sys.stderr = cast(TextIO, self._file)

    def _flush(self) -> None:
        for stream in (sys.stdout, sys.stderr, *self.shown, self._file):
            stream.flush()


def _descriptor(stream: IO[str]) -> int | None:
    try:
        return stream.fileno()
    except (OSError, ValueError, AttributeError):
        return None


screen = Screen()
"""The one screen of this process."""


class _Messages(logging.Handler):
    """Shows derta's own messages, not those of libraries."""

    def emit(self, record: logging.LogRecord) -> None:
        screen.say(f"derta: {record.getMessage()}", errors=True)


class _Record(logging.LogRecord):
    """A message of anybody: libraries log the whole URL of a request, and names and texts of others."""

    def getMessage(self) -> str:  # noqa: N802  (named so by the base class)
        return visible_text(redacted_text(super().getMessage()))


_format_warning = warnings.formatwarning


def _format_visibly(*given: Any, **more: Any) -> str:
    return visible_text(redacted_text(_format_warning(*given, **more)))


def show_messages() -> None:
    """Show what derta's modules log, and let nobody log who logs in to a server or move the terminal's cursor."""
    logging.setLogRecordFactory(_Record)
    warnings.formatwarning = _format_visibly
    logger = logging.getLogger("derta")
    if not any(isinstance(handler, _Messages) for handler in logger.handlers):
        logger.addHandler(_Messages())
    logger.setLevel(logging.INFO)
