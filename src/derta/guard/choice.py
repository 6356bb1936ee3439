"""One choice of a completion on its way through the guard, streamed or whole."""

from derta.guard.calibration import Calibration
from derta.guard.completion import ChoicePart
from derta.guard.hold_back import HoldBack
from derta.guard.refusal_bound import RefusalBound
from derta.guard.spelling import SpellingCheck


class GuardedChoice:
    """One choice, of which nothing leaves before later tokens stayed calm.

    Args:
        calibration (`Calibration`): when to stop it.
        bound (`RefusalBound`): what its log-probabilities tell of p(refuse).
        follows (`bool`): whether it continues a text that the client has: a prompt, or a begun answer.

    Attributes:
        hold_back (`HoldBack[ChoicePart]`): what is held, and where the choice was stopped.
        is_over (`bool`): whether it has ended, by itself or by the guard.
    """

    def __init__(self, calibration: Calibration, bound: RefusalBound, *, follows: bool) -> None:
        self._calibration = calibration
        self._bound = bound
        self._spelling = SpellingCheck()
        self._has_text = follows
        self.hold_back: HoldBack[ChoicePart] = HoldBack(calibration.threshold, calibration.hold_back)
        self.is_over = False

    def push(self, part: ChoicePart) -> list[ChoicePart]:
        """Take a piece of the choice from a stream, and return the pieces that may leave.

        Raises:
            UntrustedError: Its text isn't what its tokens spell, or their probabilities can't be true.
        """
        if self.is_over:
            return []
        self._spelling.take(part.text, [place.written for place in part.logprobs])
        leaving = self.hold_back.push(part, [self._bound(place) for place in part.logprobs])
        if part.finish_reason is not None:
            leaving += self.hold_back.end()
        if self.hold_back.stopped_at is not None:
            leaving = [self._refusal(part.index)]
        self.is_over = part.finish_reason is not None or self.hold_back.stopped_at is not None
        self._has_text = self._has_text or any(each.text for each in leaving)
        return leaving

    def whole(self, part: ChoicePart) -> ChoicePart:
        """Return a whole choice as it is or, if it was to be stopped anywhere, refusing in its place."""
        self._spelling.take(part.text, [place.written for place in part.logprobs])
        self.hold_back.push(part, [self._bound(place) for place in part.logprobs])
        self.is_over = True
        return part if self.hold_back.stopped_at is None else self._refusal(part.index)

    def _refusal(self, index: int) -> ChoicePart:
        words = self._calibration.ending(follows=self._has_text)
        return ChoicePart(index, words, finish_reason="content_filter")
