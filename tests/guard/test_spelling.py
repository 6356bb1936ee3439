"""Text passes only with the tokens that spell it, however tokenizers and servers name them."""

import pytest

from derta.guard.completion import NamedToken, UntrustedError
from derta.guard.spelling import SpellingCheck


def take(*pieces):
    check = SpellingCheck()
    for text, *names in pieces:
        check.take(text, [NamedToken(name, -1.0, name) for name in names])


@pytest.mark.parametrize(
    "pieces",
    [
        [("The cat", "The", " cat")],
        [("The cat", "The", "cat")],  # a tokenizer that drops spaces
        [("The cat", "ĠThe", "Ġcat")],
        [("The cat", "▁The", "▁cat")],
        [("", "The", " ca"), ("The ca",), ("t", "t")],  # held back for a stop text
        [("The", "<think>", "The", "</think>"), (" end", " end", "<|im_end|>")],
        [("<b>", "<b>")],
        [("", "�"), ("", "�"), ("🙂", "�")],
        [("", ""), ("🙂", "🙂")],
        [("é", "<0xC3>", "<0xA9>")],
        [("你好", "你", "好")],
        [("a\n\n", "a", "\n\n")],
    ],
)
def test_text_passes_with_its_tokens(pieces):
    take(*pieces)


@pytest.mark.parametrize(
    "pieces",
    [
        [("The",)],
        [("Sorry", "token_id:8")],
        [("The", "The"), (" cat",), (" sat", " sat")],  # one chunk's log-probabilities are lost
        [("The", "The"), ("\n",)],
        [("The", "The"), ("猫",)],
        [("The cat sat", "The")],
        [("a" + "é" * 50, "a")],
        [("a" + " " * 50, "a")],
        [("cat The", " The", "cat")],
    ],
)
def test_text_that_no_token_spells_ends_the_choice(pieces):
    with pytest.raises(UntrustedError):
        take(*pieces)
