"""The refusal token in its contexts."""

import itertools

import pytest
from transformers import PreTrainedTokenizerFast

from derta.errors import InputError
from derta.tokens.encoder import Encoder
from derta.tokens.refusal_tokens import WhiteSpace, refusal_tokens


def encoder(tokenizer: PreTrainedTokenizerFast) -> Encoder:
    return Encoder(tokenizer, max_length=512)


def test_refusal_token_by_context_bare_and_as_a_set(tokenizer: PreTrainedTokenizerFast) -> None:
    bare, spaced = (tokenizer.convert_tokens_to_ids(piece) for piece in ("Sorry", "ĠSorry"))
    in_context = refusal_tokens(encoder(tokenizer), ["Sorry"], "context")
    assert (in_context.start, in_context.line, in_context.word) == (spaced, bare, spaced)  # "Assistant: Sorry"
    released = refusal_tokens(encoder(tokenizer), ["Sorry"], "bare")
    assert (released.start, released.line, released.word, released.all) == (bare, bare, bare, (bare,))
    both = refusal_tokens(encoder(tokenizer), ["Sorry", "I"], "set")
    assert {tokenizer.convert_ids_to_tokens(token) for token in both.all} == {"Sorry", "ĠSorry", "I", "ĠI"}


def test_a_text_of_several_tokens_stands_for_its_first(tokenizer: PreTrainedTokenizerFast) -> None:
    (first,) = refusal_tokens(encoder(tokenizer), ["Sorry, I"], "bare").all
    assert tokenizer.decode([first]) == "Sorry"


def test_a_first_token_that_many_words_begin_with_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(InputError, match=r"'Apologies' begins with no token of its own .*: it is \["):
        refusal_tokens(encoder(tokenizer), ["Apologies"], "context")
    with pytest.raises(InputError, match="2 texts need --refusal_form set"):
        refusal_tokens(encoder(tokenizer), ["Sorry", "I"], "context")


def test_words_end_where_white_space_or_wide_characters_meet(tokenizer: PreTrainedTokenizerFast) -> None:
    white_space = WhiteSpace(tokenizer)

    def ends(text: str) -> list[str]:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        marks = [tokenizer.decode([a]) for a, b in itertools.pairwise(ids) if white_space.between(a, b)]
        return [mark.strip() for mark in marks]

    assert ends("open the vault\nunseen")[-1] != "unseen"
    pieces = tokenizer.tokenize("unbelievably")
    assert len(pieces) > 1
    assert not ends("unbelievably")
    assert len(ends("open the vault")) == 2


def test_white_space_of_real_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    white_space = WhiteSpace(tokenizer)
    ids = {text: tokenizer(text, add_special_tokens=False)["input_ids"][-1] for text in ("a\n", "a", "a ", "vault")}
    assert {text: white_space.ends(token) for text, token in ids.items()} == {
        "a\n": True,
        "a": False,
        "a ": True,
        "vault": False,
    }
