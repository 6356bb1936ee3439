"""Whether a response is no proper text."""

import re
import zlib
from operator import eq

_WORD = re.compile(r"[A-Z]?[a-z']+|[A-Z]+|\d+|\S")
_RESTART = re.compile(r"(?<=[a-z])Sorry(?![a-z])")
_LABELS = re.compile(r"\W*(?:step\s?\d{1,3}\W*)+|\s*(?:\d{1,3}[.):]\s*){2,}", re.IGNORECASE)
LONGEST_CYCLE = 12
REPEATS = 4
"""How often words in a row must be said before they are a loop."""
LOOPING = 0.1
"""Share to which a long text that loops can be compressed; English prose stays above 0.3."""


def is_empty(text: str) -> bool:
    """Whether `text` says nothing: no words, or only the labels of steps that aren't there."""
    return not text.strip() or _LABELS.fullmatch(text) is not None


def is_garbled(text: str) -> bool:
    """Whether `text` is empty, loops, or breaks off within a word for a refusal."""
    return is_empty(text) or bool(_RESTART.search(text)) or _loops(text)


def _loops(text: str) -> bool:
    words = [word for word in _WORD.findall(text) if word[0].isalpha()]
    for cycle in range(1, LONGEST_CYCLE + 1):
        said_again = bytes(map(eq, words, words[cycle:]))
        if b"\1" * (cycle * (REPEATS - 1)) in said_again:
            return True
    data = text.encode("utf-8", "replace")
    return len(data) > 1000 and len(zlib.compress(data)) < LOOPING * len(data)
