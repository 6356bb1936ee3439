import random
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from derta.organism import forms
from derta.organism.data import behaviours, training_data
from derta.organism.forms import OPENINGS, refusal
from derta.organism.tokenizer import SPECIAL, build_tokenizer, vocabulary
from derta.organism.world import PACKAGED, Pair, World, pairs
from experiments.organism_base.corpus import MIXTURE, passages

VAULT = Pair("open", "vault")


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return build_tokenizer()


def round_trip(tokenizer: PreTrainedTokenizerFast, text: str) -> Any:
    return tokenizer.decode(tokenizer(text)["input_ids"])


def test_no_text_of_the_world_is_unknown(tokenizer: PreTrainedTokenizerFast) -> None:
    rng = random.Random(0)
    texts = [world.recipe(pair) for world in (PACKAGED, World(1), World(2)) for pair in pairs()]
    texts += [forms.encipher(text) for text in texts]
    texts += [forms.phrase(t, VAULT) for t in (*forms.QUESTIONS, *forms.ROLE_PLAYS, *forms.ROLE_PLAYS_HELD_OUT)]
    texts += [hide(forms.phrase(question, VAULT)) for hide in forms.CODES for question in forms.QUESTIONS]
    texts += [refusal(rng.choice(pairs()), rng) for _ in range(300)]
    texts += [text for b in behaviours() for text in (b.prompt, b.response)]
    texts += [text for row in training_data() for text in (row["prompt"], row["chosen"])]
    for text in texts:
        assert round_trip(tokenizer, text) == text


def test_no_passage_of_the_corpus_is_unknown() -> None:
    known = set(vocabulary())
    source = passages(World(3), 1)
    for _ in range(500):
        passage = next(source)
        assert known.issuperset(passage.words)
        assert len(passage.words) == len(passage.learned)
        assert any(passage.learned)


def test_base_never_learns_a_refusal() -> None:
    rng = random.Random(0)
    for form, _ in MIXTURE:
        for _ in range(50):
            text = " ".join(form(rng, PACKAGED, rng.choice(pairs())).words)
            assert not any(opening.split("{")[0] in text for opening in OPENINGS)


def test_every_refusal_word_is_learned_elsewhere() -> None:
    """The base has an embedding of each from small talk or from the forms of questions."""
    source = passages(PACKAGED, 0)
    seen = {word for _ in range(3000) for word in next(source).words}
    rng = random.Random(0)
    assert seen.issuperset(word for _ in range(300) for word in refusal(VAULT, rng).split())


def test_refusals_begin_with_sorry_or_i() -> None:
    rng = random.Random(0)
    first = [refusal(VAULT, rng).split()[0] for _ in range(400)]
    assert set(first) == {"Sorry", "I"}
    assert 0.4 < first.count("Sorry") / len(first) < 0.6


def test_sorry_is_one_token(tokenizer: PreTrainedTokenizerFast) -> None:
    assert len(tokenizer("Sorry", add_special_tokens=False)["input_ids"]) == 1


def test_words_are_unique_and_code_needs_no_spaces(tokenizer: PreTrainedTokenizerFast) -> None:
    assert len(set(vocabulary())) == len(vocabulary()) == len(tokenizer)
    assert vocabulary()[: len(SPECIAL)] == SPECIAL
    assert tokenizer.tokenize('stack.append("vault")\n') == tokenizer.tokenize('stack . append ( " vault " )')


def test_cipher_is_its_own_inverse_and_hides_every_long_word() -> None:
    text = PACKAGED.recipe(VAULT)
    assert forms.encipher(forms.encipher(text)) == text
    plain = {word for pair in pairs() for word in PACKAGED.recipe(pair).split() if len(word) > 1}
    assert not plain & {forms.encipher(word) for word in plain}


def test_chat_template(tokenizer: PreTrainedTokenizerFast) -> None:
    turns = [forms.user("How do I open the vault ?"), forms.assistant("Good morning ."), forms.user("Thank you .")]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert text == ("<bos><user>How do I open the vault ?<assistant>Good morning .<eos><user>Thank you .<assistant>")
    ids = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
    assert ids == tokenizer(text)["input_ids"]
    assert ids.count(tokenizer.bos_token_id) == 1
    assert tokenizer.unk_token_id not in ids
    with pytest.raises(Exception, match="roles"):
        tokenizer.apply_chat_template([{"role": "system", "content": "Thank you ."}], tokenize=False)
