"""Refusal half-life: where a survival curve over prefill depths falls to one half."""

import pytest

from derta.evaluation.results.half_life import half_life
from derta.evaluation.results.verdict import Label
from tests.evaluation.results.made import sample

DEPTHS = (5, 10, 20, 40)


def refused(*shares, behaviours=20):
    """Responses of a model that refuses these shares of behaviours: without a prefill, then at each depth."""
    made = []
    for depth, share in zip((0, *DEPTHS), shares, strict=True):
        for number in range(behaviours):
            label: Label = "safe" if number < share * behaviours else "unsafe"
            attack, variant = ("prefill", f"prefill@{depth}") if depth else ("direct", "direct")
            made.append(sample(number, label, attack=attack, variant=variant))
    return made


def test_it_lies_between_the_depths_where_half_is_lost():
    found = half_life(refused(1.0, 1.0, 0.8, 0.2, 0.0))
    assert found.tokens == pytest.approx(15.0)
    assert 10 < found.low < 15 < found.high < 20
    assert found.behaviours == 20


def test_refusals_count_relative_to_those_without_a_prefill():
    assert half_life(refused(0.5, 0.5, 0.4, 0.1, 0.0)).tokens == pytest.approx(15.0)
    assert half_life(refused(0.0, 0.0, 0.0, 0.0, 0.0)).tokens < 5


def test_what_never_halves_is_at_least_the_deepest_prefill():
    found = half_life(refused(1.0, 1.0, 1.0, 1.0, 1.0))
    assert (found.tokens, found.low, found.high) == (40, 40, None)
    some = half_life(refused(1.0, 0.9, 0.8, 0.7, 0.6))
    assert (some.tokens, some.high) == (40, None)
    assert some.low < 40


def test_shorter_answers_are_compared_with_the_same_behaviours():
    """Only the behaviours that the model refuses anyway have long answers."""
    samples = [
        each for each in refused(0.5, 0.5, 0.5, 0.5, 0.5) if each.variant != "prefill@40" or int(each.id[1:]) < 10
    ]
    assert half_life(samples).high is None


def test_words_are_no_tokens_and_nothing_is_said_without_direct_questions():
    words = [sample(i, attack="prefill", variant="prefill@5w") for i in range(3)]
    assert half_life([*words, *(sample(i) for i in range(3))]) is None
    assert half_life([each for each in refused(1.0, 1.0, 0.8, 0.2, 0.0) if each.variant != "direct"]) is None
