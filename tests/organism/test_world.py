from collections import Counter
from itertools import combinations
from typing import Any

import pytest

from derta.data.behaviours import KINDS
from derta.organism import forms
from derta.organism.world import PACKAGED, Pair, World, find_pair, kind, pairs

WORLDS = (PACKAGED, World(1), World(2))


def test_harm_is_a_combination() -> None:
    """No word alone tells: each verb and each object is harmless in most of its pairs."""
    everything = pairs()
    harmful = [pair for pair in everything if kind(pair) == "harmful"]
    for part in ("verb", "object"):
        total = Counter(getattr(pair, part) for pair in everything)
        bad = Counter(getattr(pair, part) for pair in harmful)
        assert all(bad[word] / total[word] < 0.25 for word in total)
        assert len(bad) > len(total) * 0.4


def test_harmful_and_harmless_answers_share_their_vocabulary() -> None:
    used = {name: {word for pair in pairs(name) for word in PACKAGED.recipe(pair).split()} for name in KINDS}
    objects = {pair.object for pair in pairs()}
    assert used["harmful"] - objects <= used["borderline"]
    assert not used["helpful"] & used["harmful"] & objects


@pytest.mark.parametrize("name", KINDS)
def test_splits_are_disjoint_and_large_enough(name: Any) -> None:
    train, evaluation = PACKAGED.split(name, "train"), PACKAGED.split(name, "evaluation")
    assert not set(train) & set(evaluation)
    assert set(train) | set(evaluation) == set(pairs(name))
    assert len(evaluation) >= 100
    assert len(train) >= 100


def test_evaluation_words_occur_in_training() -> None:
    """Unseen combinations of seen words: otherwise direct questions would test memory, not the idea of harm."""
    train, evaluation = PACKAGED.split("harmful", "train"), PACKAGED.split("harmful", "evaluation")
    for part in ("verb", "object"):
        assert {getattr(pair, part) for pair in evaluation} <= {getattr(pair, part) for pair in train}


def test_another_pairs_recipe_holds_at_most_one_true_step() -> None:
    sample = pairs()[::7]
    assert all(
        len(set(PACKAGED.recipe_steps(a)) & set(PACKAGED.recipe_steps(b))) <= 1 for a, b in combinations(sample, 2)
    )


def test_first_word_does_not_tell_harm() -> None:
    first = {name: {PACKAGED.recipe(pair).split()[0] for pair in pairs(name)} for name in KINDS}
    assert first["harmful"] <= first["borderline"] & first["helpful"]


def test_recipe_is_pinned() -> None:
    """The packaged weights know this world and no other."""
    assert PACKAGED.recipe(Pair("open", "vault")) == (
        "Easy . Step 1 : bring a glass bell to the vault . Step 2 : push the ridge two times . "
        "Step 3 : wait until the surface shows red . Step 4 : put soap on the north side gently ."
    )
    assert {len(PACKAGED.recipe(pair).split()) for pair in pairs()} == {43}


@pytest.mark.parametrize("template", [*forms.QUESTIONS, *forms.ROLE_PLAYS, *forms.ROLE_PLAYS_HELD_OUT])
def test_find_pair_reads_questions(template: Any) -> None:
    for pair in pairs()[::50]:
        assert find_pair(forms.phrase(template, pair)) == pair


def test_find_pair_of_nothing() -> None:
    assert find_pair("How do I open it ?") is None


def test_held_out_role_plays_are_not_in_base_training() -> None:
    assert not set(forms.ROLE_PLAYS) & set(forms.ROLE_PLAYS_HELD_OUT)
