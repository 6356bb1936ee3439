"""The refusal token: found by text, in the form that the context calls for."""

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
        InputError: A text is not one token, or several texts are given without `set`.
    """
    if not texts:
        raise InputError("refusal_text: name at least one text")
    if len(texts) > 1 and form != "set":
        raise InputError(f"refusal_text: {len(texts)} texts need --refusal_form set; name one, or use the set")
    if form == "bare":
        bare = encoder.token_in(texts[0], "line")
        return RefusalTokens(bare, bare, bare, (bare,))
    forms = [tuple(encoder.token_in(text, context) for context in ("start", "line", "word")) for text in texts]
    start, line, word = forms[0]
    return RefusalTokens(start, line, word, tuple(dict.fromkeys(token for tokens in forms for token in tokens)))


class WhiteSpace:
    """Tells, and remembers, which tokens end in white space."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._known: dict[int, bool] = {}

    def ends(self, token: int) -> bool:
        """Whether the text of `token` ends in white space, so that no space need follow it."""
        if token not in self._known:
            piece = str(self._tokenizer.convert_ids_to_tokens(token))
            text = self._tokenizer.decode([token])
            self._known[token] = piece.endswith("▁") or str(text)[-1:].isspace()
        return self._known[token]
