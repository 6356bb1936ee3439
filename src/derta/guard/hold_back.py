"""Which of a model's words may leave: the one decision that the proxy, the engine and `generate` share."""

from collections import deque
from collections.abc import Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class HoldBack(Generic[T]):
    """Holds each token until `window` later ones stayed below the threshold.

    A probability belongs to the place before its token: the model gives it before the token is written. So the first
    of them decides before anything was written at all, and with a window of 0 a token leaves as soon as the model
    preferred it to a refusal.

    Args:
        threshold: The stream is stopped by a probability of refusing above it. NaN is above every threshold.
        window: How many later tokens must be calm before a token leaves.

    Attributes:
        seen: How many tokens have come.
        released: How many of them have left.
        stopped_at: How many tokens had come before the place that stopped the stream; `None` while it is calm.
    """

    def __init__(self, threshold: float, window: int) -> None:
        self._threshold = threshold
        self._window = window
        self._held: deque[tuple[T, int]] = deque()
        self.seen = 0
        self.released = 0
        self.stopped_at: int | None = None

    def push(self, item: T, probabilities: Sequence[float] = ()) -> list[T]:
        """Take what came, a piece of text and the probabilities of its tokens, and return what may leave.

        A piece without tokens leaves after what came before it.
        """
        if not self._is_calm(probabilities):
            return []
        self._held.append((item, self.seen))
        return self._release(self.seen - self._window)

    def end(self, probabilities: Sequence[float] = ()) -> list[T]:
        """Take the probabilities of what ended the answer (none at a limit), and return what was still held."""
        return self._release(self.seen) if self._is_calm(probabilities) else []

    def _is_calm(self, probabilities: Sequence[float]) -> bool:
        for probability in probabilities:
            if self.stopped_at is None and not probability <= self._threshold:
                self.stopped_at = self.seen
                self._held.clear()
            if self.stopped_at is None:
                self.seen += 1
        return self.stopped_at is None

    def _release(self, until: int) -> list[T]:
        """Let go of the pieces whose last token is among the first `until`."""
        free: list[T] = []
        while self._held and self._held[0][1] <= until:
            item, self.released = self._held.popleft()
            free.append(item)
        return free
