"""Whether an answer's text is what its tokens spell: text that no log-probability stands for can't be guarded."""

import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from derta.guard.completion import NamedToken, UntrustedError

# Servers leave tokens such as <|im_end|>, </think> and [INST] out of the text.
_SPECIAL = re.compile(r"<[^<>\s]{1,64}>|\[[A-Z_/0-9]{1,32}\]")
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")


@dataclass
class _Letters:
    """The printable ASCII characters that a token spells, as far as no text has matched them yet."""

    whole: str
    rest: str


class SpellingCheck:
    """Follows one choice, and ends it where its text isn't what its tokens spell.

    Printable ASCII has to match letter by letter, in order. Spaces and other characters are counted only: tokenizers
    drop spaces, and a character of several tokens has no name of its own. The text may lag behind (a server holds back
    what could become a stop text); tokens are never too early.
    """

    def __init__(self) -> None:
        self._waiting: deque[_Letters] = deque()
        self._spaces = 0
        self._others = 0

    def take(self, text: str, tokens: Sequence[NamedToken]) -> None:
        """Take the next tokens and the text that came with them.

        Raises:
            UntrustedError: The text isn't theirs.
        """
        for token in tokens:
            letters, spaces, others = _sorted(token.spelling.lstrip("Ġ▁"))
            self._waiting.append(_Letters(letters, letters))
            # A token that is named alone may have lost the space before it.
            self._spaces += spaces + 1
            self._others += 1 if _BYTE.fullmatch(token.spelling) else others
        if not text:
            return
        if not self._waiting:
            raise UntrustedError("the server sends text without the log-probabilities of its tokens")
        letters, spaces, others = _sorted(text)
        self._match(letters)
        self._spaces -= spaces
        self._others -= others
        if self._spaces < 0 or self._others < 0:
            raise UntrustedError("the server sends more text than its tokens spell")

    def _match(self, letters: str) -> None:
        while letters:
            if not self._waiting:
                raise UntrustedError("the server sends text without the log-probabilities of its tokens")
            token = self._waiting[0]
            if letters.startswith(token.rest):
                letters = letters[len(token.rest) :]
                self._waiting.popleft()
            elif token.rest.startswith(letters):
                token.rest = token.rest[len(letters) :]
                letters = ""
            elif token.rest == token.whole and _SPECIAL.fullmatch(token.whole):
                self._waiting.popleft()
            else:
                raise UntrustedError("the server's tokens spell another text than it sends")
        # Tokens without a letter are done with: they must not stand for text that comes later.
        while self._waiting and not self._waiting[0].rest:
            self._waiting.popleft()


def _sorted(text: str) -> tuple[str, int, int]:
    """Return the printable ASCII of a text, how many spaces it has, and how many other characters."""
    letters = "".join(each for each in text if "!" <= each <= "~")
    spaces = sum(each.isspace() for each in text)
    return letters, spaces, len(text) - len(letters) - spaces
