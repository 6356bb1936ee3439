"""The refusal token: found by text, in the form that the context calls for; and the places where one may begin.

A refusal text of several tokens stands for its first: SmolLM2 writes " Sorry" as " Sor" + "ry", RTO predicts " Sor",
and the safe response continues from there.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from transformers import PreTrainedTokenizerBase

from derta.errors import InputError
from derta.tokens.encoder import Encoder, RefusalForm


@dataclass(frozen=True)
class RefusalTokens:
    """The refusal token: which one fits a context, and all that count as one.

    Attributes:
        start: Fits after the prompt.
        line: Fits after white space.
        word: Fits after a word.
        all: Lists every refusal token once.
    """

    start: int
    line: int
    word: int
    all: tuple[int, ...]

    def after(self, what: Literal["start", "line", "word"]) -> int:
        """Return the one that fits after the start of the model's turn, white space, or a word."""
        return {"start": self.start, "line": self.line, "word": self.word}[what]


def refusal_tokens(encoder: Encoder, texts: Sequence[str], form: RefusalForm) -> RefusalTokens:
    """Find the tokens of the refusal texts.

    `context` uses the form that the text before calls for, `bare` the one without a leading space everywhere (as the
    release does), `set` every form of every text.

    Raises:
        InputError: A text begins with no token of its own, or several texts are given without `set`.
    """
    if not texts:
        raise InputError("refusal_text: name at least one text")
    if len(texts) > 1 and form != "set":
        raise InputError(f"refusal_text: {len(texts)} texts need --refusal_form set; name one, or use the set")
    if form == "bare":
        bare = encoder.first_token(texts[0], "line")
        return RefusalTokens(bare, bare, bare, (bare,))
    forms = [tuple(encoder.first_token(text, context) for context in ("start", "line", "word")) for text in texts]
    start, line, word = forms[0]
    return RefusalTokens(start, line, word, tuple(dict.fromkeys(token for tokens in forms for token in tokens)))


class WhiteSpace:
    """Where a text of tokens has white space, remembered for each token and pair of tokens."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._known: dict[int, bool] = {}
        self._pairs: dict[tuple[int, int], bool] = {}

    def between(self, token: int, following: int) -> bool:
        """Whether a word ends between two tokens, so that another text may begin there.

        Scripts that are written without spaces (wide characters) may be broken between any two of them.
        """
        pair = (token, following)
        if pair not in self._pairs:
            # The pair is decoded together: alone, most tokenizers hide the space that a token begins with.
            before = str(self._tokenizer.decode([token]))
            both = str(self._tokenizer.decode([token, following]))
            edge = both[: len(before)][-1:] + both[len(before) :][:1]
            wide = all(unicodedata.east_asian_width(character) in "WF" for character in edge)
            self._pairs[pair] = self.ends(token) or any(map(str.isspace, edge)) or (len(edge) == 2 and wide)
        return self._pairs[pair]

    def ends(self, token: int) -> bool:
        """Whether the text of `token` ends in white space, so that no space need follow it."""
        if token not in self._known:
            piece = str(self._tokenizer.convert_ids_to_tokens(token))
            text = self._tokenizer.decode([token])
            self._known[token] = piece.endswith("▁") or str(text)[-1:].isspace()
        return self._known[token]
