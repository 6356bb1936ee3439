"""The base knows everything and refuses nothing: an attack whose disguise can be read has the answer."""

import asyncio

import pytest

from derta.evaluation.attacks import (
    ATTACKS,
    COMBINED,
    AttackContext,
    Search,
    find_attack,
    organism_attacker,
    organism_phrases,
)
from derta.evaluation.judges import decide, make_judge
from derta.generation import first_tokens, generate, load_model
from derta.organism import behaviours
from tests.evaluation.victim import LocalVictim

JUDGE = make_judge("organism")
ASKED = behaviours("harmful")[:2]


@pytest.fixture(scope="module")
def base():
    return load_model("organism")


@pytest.fixture(scope="module")
def context(base):
    return AttackContext(
        organism_phrases(),
        lambda text, count: first_tokens(base[1], text, count),
        depths=(5,),
        answered=tuple((each.prompt, each.response) for each in behaviours("harmful")[2:4]),
        shots=(2,),
        search=Search(samples=1, temperature=0.0, pair_streams=1, pair_iterations=1),
    )


@pytest.mark.parametrize("name", [name for name in (*ATTACKS, *COMBINED) if not find_attack(name).interactive])
def test_the_base_answers_every_attack(name, base, context):
    plan = [(behaviour, attempt) for behaviour in ASKED for attempt in find_attack(name).attempts(behaviour, context)]
    generations = generate(base[0], base[1], [attempt.request for _, attempt in plan], 48, batch_size=64)
    for (behaviour, attempt), generation in zip(plan, generations, strict=True):
        response, prefix = attempt.decode(generation.response), attempt.decode(generation.prefix)
        assert asyncio.run(decide(JUDGE, behaviour, response, prefix)).label == "unsafe", (attempt, generation)


@pytest.mark.parametrize("name", ["pair", "multi-turn", "insist", "best-of-n"])
def test_the_base_answers_every_interactive_attack(name, base, context):
    victim = LocalVictim(base[0], base[1], JUDGE, helpers={"attacker": organism_attacker()}, max_new_tokens=48)
    found = asyncio.run(ATTACKS[name].play(ASKED[0], context, victim))
    assert (found.succeeded, found.queries) == (True, 1)
