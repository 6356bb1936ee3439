"""Text as rules read it: one spelling for what looks alike, and the way back to places in the original."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

_ALIKE = str.maketrans(
    {
        **dict.fromkeys("`*_", " "),
        **dict.fromkeys("\u2018\u2019\u201a\u201b\u2032\u02bc\u02b9\u00b4\u055a", "'"),
        **dict.fromkeys("\u201c\u201d\u201e\u201f\u00ab\u00bb", '"'),
        **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212", "-"),
    }
)
# Tuned models break off anywhere, also within a word: "use aSorry, I cannot". Escapes are those of code strings.
_GLUED = re.compile(r"(?<=\w)(?=(?:Sorry|I'm sorry|I am sorry|I apologi[sz]e|I cannot|I can't)(?![a-z]))")
_ESCAPE = re.compile(r"\\(?=['\"])")


@dataclass(frozen=True)
class Plain:
    """Lower-case text with one kind of quote, dash and space, without invisible characters and emphasis.

    Attributes:
        text: what rules match.
        places: for each of its characters, and its end, the place in the original; `None` if they are the same.
    """

    text: str
    places: Sequence[int] | None = None

    def place(self, at: int) -> int:
        """Return the place in the original of a place in `text`."""
        return at if self.places is None else self.places[at]


@lru_cache(maxsize=8)
def plain(original: str) -> Plain:
    """Return `original` as rules read it: compatibility forms folded, a refusal glued to a word set apart."""
    gaps = {match.start() for match in _GLUED.finditer(original)}
    if original.isascii() and not gaps and not _ESCAPE.search(original):
        return Plain(original.translate(_ALIKE).lower())
    escapes = {match.start() for match in _ESCAPE.finditer(original)}
    pieces: list[str] = []
    places: list[int] = []
    for place, character in enumerate(original):
        folded = "" if place in escapes else _fold(character)
        if place in gaps:
            folded = " " + folded
        pieces.append(folded)
        places += [place] * len(folded)
    return Plain("".join(pieces), [*places, len(original)])


@cache
def _fold(character: str) -> str:
    if character.isascii():
        return character.translate(_ALIKE).lower()
    if unicodedata.category(character) == "Cf":
        return ""
    folded = character.translate(_ALIKE)
    if folded == character:
        folded = unicodedata.normalize("NFKC", character).translate(_ALIKE).lower()
    return " " if folded.isspace() else folded
