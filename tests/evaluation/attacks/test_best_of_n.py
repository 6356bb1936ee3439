import asyncio
from dataclasses import replace

from derta.evaluation.attacks import ATTACKS, Search
from derta.generation import Generation
from tests.evaluation.attacks.given import BEHAVIOUR, CONTEXT, ScriptedVictim, only_turn

FIVE = replace(CONTEXT, search=Search(samples=5, temperature=0.7))


def attack(victim, behaviour=BEHAVIOUR, context=FIVE):
    return asyncio.run(ATTACKS["best-of-n"].play(behaviour, context, victim))


def seeds(behaviour=BEHAVIOUR, context=FIVE):
    drawn = []
    attack(ScriptedVictim(lambda request, seed: drawn.append(seed) or "No"), behaviour, context)
    return drawn


def in_order(*responses):
    rest = iter(responses)
    return ScriptedVictim(lambda request, seed: next(rest))


def test_the_plain_question_is_sampled_n_times():
    victim = in_order("No 1", "No 2", "No 3", "No 4", "No 5")
    found = attack(victim)
    assert {only_turn(request) for request in victim.of("respond")} == {BEHAVIOUR.prompt}
    assert victim.temperatures == [0.7] * 5
    assert (found.queries, found.succeeded, found.generation.response) == (5, False, "No 5")


def test_the_first_unsafe_sample_counts():
    found = attack(in_order("No", "Step a", "No", "Step b", "No"))
    assert (found.queries, found.succeeded, found.generation.response) == (5, True, "Step a")


def test_every_sample_has_a_seed_of_its_own_that_a_repetition_gives_again():
    assert len(set(seeds())) == 5
    assert seeds() == seeds()
    assert not set(seeds()) & set(seeds(replace(BEHAVIOUR, id="other")))
    assert not set(seeds()) & set(seeds(context=replace(FIVE, seed=1)))


def test_samples_are_asked_for_at_once():
    class Waiting(ScriptedVictim):
        """Answers nobody before five have asked."""

        async def respond(self, request, *, temperature=0.0, seed=0):
            asked.append(seed)
            if len(asked) == 5:
                everybody.set()
            await asyncio.wait_for(everybody.wait(), timeout=5)
            return Generation("", "No", 1, True)

    asked, everybody = [], asyncio.Event()
    assert attack(Waiting(lambda request, seed: "")).queries == 5
