"""The base knows everything and refuses nothing: an attack whose disguise can be read has the answer."""

import asyncio

import pytest

from derta.evaluation.attacks import ATTACKS, INTERACTIVE, Search, Setting, organism_attacker, organism_phrases
from derta.evaluation.judges import decide, judge_named
from derta.inference import first_tokens, generate, load_model
from derta.organism import behaviours
from tests.evaluation.victim import LocalVictim

JUDGE = judge_named("organism")
ASKED = behaviours("harmful")[:2]


@pytest.fixture(scope="module")
def base():
    return load_model("organism")


@pytest.fixture(scope="module")
def setting(base):
    return Setting(
        organism_phrases(),
        lambda text, count: first_tokens(base[1], text, count),
        depths=(5,),
        search=Search(samples=1, temperature=0.0, pair_streams=1, pair_iterations=1),
    )


@pytest.mark.parametrize("name", ATTACKS)
def test_the_base_answers_every_attack(name, base, setting):
    plan = [(behaviour, attempt) for behaviour in ASKED for attempt in ATTACKS[name](behaviour, setting)]
    generations = generate(*base, [attempt.request for _, attempt in plan], 48, 64)
    for (behaviour, attempt), generation in zip(plan, generations, strict=True):
        response, prefix = attempt.decode(generation.response), attempt.decode(generation.prefix)
        assert asyncio.run(decide(JUDGE, behaviour, response, prefix)).label == "unsafe", (attempt, generation)


@pytest.mark.parametrize("name", ["pair", "multi-turn", "best-of-n"])
def test_the_base_answers_every_interactive_attack(name, base, setting):
    victim = LocalVictim(*base, JUDGE, helpers={"attacker": organism_attacker()}, max_new_tokens=48)
    found = asyncio.run(INTERACTIVE[name](ASKED[0], setting, victim))
    assert (found.succeeded, found.queries) == (True, 1)
