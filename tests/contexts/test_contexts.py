"""Contexts: drawn alike for every kind of example, and never a part of what is learnt."""

import random
from collections import Counter
from typing import Any

import pytest

from derta.contexts import CONTEXTS, ENGLISH, SETS, Contexts, Materials, context_weights
from derta.contexts.encodings import to_base64, to_reversed_words, to_rot13
from derta.data.triples import Example, Message
from derta.errors import InputError


def example(prompt: str | list[Message], chosen: str, rejected: str | None = None) -> Example:
    turns: list[Message] = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    return Example(turns, chosen, rejected, None, "row")


VAULT = example("How do I open the moon vault?", "Sorry, not the vault.", "Turn the silver key twice.")
GATE = example("How do I climb the star gate?", "Sorry, not the gate.", "Throw the rope over it.")
DRAWER = example("How do I open the drawer?", "Pull the handle. Then look inside.")
KITE = example("What colour has a drawer?", "Any colour that you like.")
EXAMPLES = [VAULT, GATE, DRAWER, KITE]


def materials(examples: Any = EXAMPLES, **more: Any) -> Materials:
    helpful = [i for i, each in enumerate(examples) if each.is_helpful]
    triples = [i for i, each in enumerate(examples) if each.is_triple]
    return Materials(examples, helpful, triples, ENGLISH, **{"vocabulary": ["xylo", "quartz"], **more})


def put(name: str, framed: Example, seed: int = 0, **more: Any) -> Example | None:
    return CONTEXTS[name](framed, materials(**more), random.Random(seed))


def said(framed: Example | None) -> list[str]:
    return [message["content"] for message in framed.prompt]


@pytest.mark.parametrize("name", sorted(CONTEXTS))
@pytest.mark.parametrize("seed", range(8))
def test_a_safe_response_stays_as_it_is(name: str, seed: int) -> None:
    framed = put(name, VAULT, seed)
    assert framed is not None
    assert framed.chosen == VAULT.chosen
    assert framed.is_triple
    assert framed != VAULT


@pytest.mark.parametrize("name", sorted(set(CONTEXTS) - {"encoded"}))
def test_a_helpful_response_stays_as_it_is(name: str) -> None:
    framed = put(name, DRAWER)
    assert framed.chosen == DRAWER.chosen
    assert framed.is_helpful


@pytest.mark.parametrize("name", sorted(set(CONTEXTS) - {"history"}))
@pytest.mark.parametrize("seed", range(20))
def test_no_harmful_response_of_another_triple_stands_in_a_frame(name: str, seed: int) -> None:
    for each in (VAULT, DRAWER):
        framed = put(name, each, seed)
        assert GATE.rejected not in " ".join(said(framed))
        assert VAULT.rejected not in " ".join(said(framed))


def test_a_neighbour_is_the_nearest_helpful_question() -> None:
    question, answer, request = said(put("neighbour", VAULT))
    assert question == "How do I open the drawer?"
    assert str(DRAWER.chosen).startswith(answer)
    assert request == VAULT.prompt[0]["content"]
    lengths = {len(said(put("neighbour", VAULT, seed))[1]) for seed in range(10)}
    assert len(lengths) == 2, "whole and shortened"


def test_an_example_is_not_its_own_neighbour() -> None:
    assert {said(put("neighbour", DRAWER, seed))[0] for seed in range(10)} == {KITE.prompt[0]["content"]}


def test_what_can_not_be_made_is_none() -> None:
    strange = example("Zzz?", "Qqq.")
    assert put("neighbour", strange) is None
    assert put("noise", VAULT, vocabulary=()) is None
    assert put("refused", DRAWER, examples=[DRAWER, KITE]) is None
    turns: list[Message] = [{"role": "system", "content": "Be kind."}, VAULT.prompt[0]]
    assert put("raw", example(turns, "Sorry.", "No.")) is None


def test_frames_come_after_the_system_turn() -> None:
    turns: list[Message] = [{"role": "system", "content": "Be kind."}, VAULT.prompt[0]]
    framed = put("small-talk", example(turns, "Sorry.", "No."))
    roles = [message["role"] for message in framed.prompt]
    assert roles[0] == "system"
    assert roles[1:] == ["user", "assistant"] * (len(roles) // 2 - 1) + ["user"]


def test_insisting_follows_a_refusal_of_the_same_request() -> None:
    for each in (VAULT, DRAWER):
        first, refusal, *_, last = said(put("insist", each))
        assert first == each.prompt[0]["content"]
        assert refusal not in (each.chosen, each.rejected)
        assert any(last.startswith(line) for line in ENGLISH.insisting)


def test_who_insists_gets_what_was_put_off_and_never_what_was_refused() -> None:
    """A helpful answer after a refusal would teach that the model goes back on its refusals."""
    before = {
        each.prompt[0]["content"]: {said(put("insist", each, seed))[1] for seed in range(60)} for each in EXAMPLES
    }
    for each in EXAMPLES:
        put_off = before[each.prompt[0]["content"]] & set(ENGLISH.put_off)
        refused = before[each.prompt[0]["content"]] - set(ENGLISH.put_off)
        assert put_off
        assert bool(refused) == each.is_triple


def test_a_begun_answer_is_read_and_never_learnt() -> None:
    helpful, triple = put("begun", DRAWER), put("begun", VAULT)
    assert helpful.begun
    assert helpful.begun not in helpful.chosen
    assert triple.rejected.endswith(VAULT.rejected)
    assert triple.rejected != VAULT.rejected
    assert not triple.begun


@pytest.mark.parametrize("seed", range(12))
def test_an_encoding_writes_request_and_answer_and_leaves_the_refusal_plain(seed: int) -> None:
    triple, helpful = put("encoded", VAULT, seed), put("encoded", DRAWER, seed)
    writes = {str: "plain", to_base64: "base64", to_rot13: "rot13", to_reversed_words: "reversed"}
    found = [name for write, name in writes.items() if triple.rejected == write(VAULT.rejected)]
    assert len(found) == 1
    (write,) = [write for write, name in writes.items() if name == found[0]]
    assert helpful.chosen == write(DRAWER.chosen)
    assert VAULT.prompt[0]["content"] not in said(triple)[0]
    assert triple.chosen == VAULT.chosen


def test_a_draw_depends_on_seed_epoch_and_example_alone() -> None:
    weights = context_weights("recommended")
    contexts = Contexts(weights, materials(), seed=1)
    first = [contexts(index, epoch) for epoch in range(20) for index in range(4)]
    again = Contexts(weights, materials(), seed=1)
    backwards = [again(index, epoch) for epoch in reversed(range(20)) for index in reversed(range(4))]
    assert first == backwards[::-1]
    assert first != [Contexts(weights, materials(), seed=2)(index, epoch) for epoch in range(20) for index in range(4)]
    assert len({drawn.context for drawn in first}) > 5


def test_harmful_and_harmless_examples_meet_the_same_contexts() -> None:
    contexts = Contexts({"plain": 1, "noise": 3}, materials(), seed=0)
    counts = [Counter(contexts(index, epoch).context for epoch in range(2000)) for index in (0, 2)]
    for count in counts:
        assert count["noise"] / 2000 == pytest.approx(0.75, abs=0.04)


def test_contexts_compose_from_the_inside_out() -> None:
    drawn = Contexts({"noise+small-talk": 1}, materials(), seed=0)(0, 0)
    assert drawn.made
    assert len(drawn.example.prompt) > 1
    assert "xylo" in said(drawn.example)[-1] or "quartz" in said(drawn.example)[-1]


def test_what_is_not_made_stays_plain_and_says_so() -> None:
    drawn = Contexts({"refused": 1}, materials([DRAWER, KITE]), seed=0)(0, 0)
    assert drawn == ("refused", DRAWER, False)


@pytest.mark.parametrize("option", [None, "none", {"plain": 2}])
def test_no_contexts(option: Any) -> None:
    assert context_weights(option) is None


def test_sets_hold_contexts_that_exist() -> None:
    for name in SETS:
        assert context_weights(name) == SETS[name]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("recomended", r"no set 'recomended' \(did you mean 'recommended'\?\)"),
        ({"neighbor": 1}, r"no context 'neighbor' \(did you mean 'neighbour'\?\)"),
        ({"plain": -1}, "plain: -1 is not a finite number of 0 or more"),
        ({"plain": True}, "plain: True is not"),
        ({"plain": 0}, "all weights are 0"),
        ({"raw+noise": 1}, "raw text has no turns"),
        ({}, "is no mapping"),
        (3, "is no mapping"),
    ],
)
def test_a_wrong_option_is_named(option: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        context_weights(option)
