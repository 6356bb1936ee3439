"""SIGTERM, by which schedulers and service managers end a command: what runs ends as after Ctrl-C, or saves first."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


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
        if not self._is_awaited:
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
