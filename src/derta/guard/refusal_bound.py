"""p(refuse) as a server's log-probabilities tell it: what isn't told is bounded from above, never guessed."""

import math
from collections.abc import Sequence

from derta.guard.completion import TokenLogprobs, UntrustedError

_ROUNDING = 1e-3
"""How far rounding may take the sum of probabilities beyond 1."""
_CERTAIN = -1e-6
"""A log-probability above it leaves nothing to any other token."""
_IMPOSSIBLE = -69.0
"""A log-probability below it (1e-30) is no model's: softmax over real logits leaves the likeliest 20 tokens more."""
_WORD_STARTS = " Ġ▁"
"""How a space before a word is written: plainly, in byte-level vocabularies and by SentencePiece."""


class RefusalBound:
    """The least number that p(refuse) is known not to exceed, at one place of an answer.

    Refusal tokens are known by what they spell, whatever a server calls them: `Sorry`, `ĠSorry`, `▁Sorry`, the bytes
    beside a name, or `token_id:8`.

    Args:
        tokens (`Sequence[int]`): the ids of the refusal tokens.
        spellings (`Sequence[str]`): their texts, one a token: several may be spelt alike.
        allow_certain (`bool`, *optional*, defaults to `False`): whether a place counts where one token alone is said
            to be possible. A server that doesn't compute probabilities (speculative decoding of llama-server) says so
            everywhere.
    """

    def __init__(self, tokens: Sequence[int], spellings: Sequence[str], *, allow_certain: bool = False) -> None:
        self._count = len(spellings)
        self._has_twins = len(set(spellings)) < self._count
        self._spellings = set(spellings)
        self._names = {*spellings, *(f"token_id:{token}" for token in tokens)}
        for spelling in spellings:
            self._names |= {spelling.replace(" ", "▁"), _byte_level(spelling)}
        self._words = {name.lstrip(_WORD_STARTS) for name in self._names}
        self._allow_certain = allow_certain

    def __call__(self, place: TokenLogprobs) -> float:
        """Return the bound at a place.

        A refusal token that is among those named counts with its probability. One that isn't is at most as likely as
        the least likely of the others named, and at most what all named leave of 1. The written token bounds nothing:
        it may be named without being among the likeliest.

        Raises:
            UntrustedError: The probabilities can't be a model's.
        """
        if not place.likely:
            raise UntrustedError("the server names no likely tokens")
        if not self._allow_certain and _is_certain(place):
            raise UntrustedError("the server says of a token that no other was possible: it computes no probabilities")
        is_named = any(token.name == place.written.name for token in place.likely)
        total = refused = 0.0
        found, least = 0, 1.0
        for token in place.likely if is_named else (*place.likely, place.written):
            chance = math.exp(token.logprob)
            total += chance
            if token.name in self._names or token.spelling in self._spellings:
                found, refused = found + 1, refused + chance
            elif token.name.lstrip(_WORD_STARTS) in self._words:
                # Named without its space it may be another token: it counts, and stands for none of ours.
                refused += chance
            if token.name != place.written.name:
                least = min(least, chance)
        if total > 1 + _ROUNDING:
            raise UntrustedError(f"the server's probabilities add up to {total:.3f}")
        left = max(1 - total, 0.0)
        missing = self._count - found
        if missing <= 0:
            return min(refused, 1.0)
        if place.is_mapping and self._has_twins:
            return min(refused + left, 1.0)
        return min(refused + min(missing * least, left), 1.0)


def _is_certain(place: TokenLogprobs) -> bool:
    others = [token for token in place.likely if token.name != place.written.name]
    return place.written.logprob > _CERTAIN and all(token.logprob < _IMPOSSIBLE for token in others)


def _byte_level(text: str) -> str:
    """Return how a byte-level vocabulary (GPT-2, Llama 3, Qwen) writes a text: a character for each byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    characters = {byte: chr(byte) for byte in printable}
    characters |= {byte: chr(256 + place) for place, byte in enumerate(others)}
    return "".join(characters[byte] for byte in text.encode())
