"""SIGTERM, by which schedulers and service managers end a command: what runs ends as after Ctrl-C, or saves first."""

import asyncio
import signal
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")


class Termination:
    """Whether this process was asked to end.

    Attributes:
        asked: Says that SIGTERM came.
    """

    def __init__(self) -> None:
        self.asked = False
        self._is_awaited = False

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Take SIGTERM while a command runs, where that is possible: in the main thread."""
        self.asked = False
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGTERM, self._take)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def _take(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        if self._is_awaited:
            return
        # Shells start what runs in the background with SIGINT ignored: raising it would do nothing.
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            raise KeyboardInterrupt
        # Libraries know how to end after Ctrl-C.
        signal.raise_signal(signal.SIGINT)

    @contextmanager
    def awaited(self) -> Iterator[None]:
        """Don't interrupt what runs inside: it looks at `asked`, saves and ends by itself."""
        self._is_awaited = True
        try:
            yield
        finally:
            self._is_awaited = False


termination = Termination()
"""The one of this process."""


def run_to_end(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine as `asyncio.run` does; an interrupt waits until there is a loop that can be closed."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        runner = asyncio.Runner()
        runner.get_loop()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    try:
        with runner:
            return runner.run(coroutine)
    finally:
        coroutine.close()  # it was never begun, if the interrupt came right then
