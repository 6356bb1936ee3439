import asyncio
from dataclasses import replace
from typing import Any, cast

import pytest

from derta.evaluation.attacks import ATTACKS, Search, organism_attacker
from derta.organism import forms
from derta.organism.world import Pair
from tests.evaluation.attacks.given import OF_ORGANISM, ORGANISM, ScriptedVictim, only_turn

PAIR = Pair("open", "vault")


class Victim(ScriptedVictim):
    """Its attacker is the organism's."""

    seed = 0

    async def ask(self, role, messages):
        if role == "attacker":
            return await organism_attacker(self.seed)(messages)
        return await super().ask(role, messages)


def prompts(streams, iterations, seed=0):
    victim = Victim(lambda request, seed: "Sorry")
    victim.seed = seed
    context = replace(ORGANISM, search=Search(pair_streams=streams, pair_iterations=iterations))
    asyncio.run(ATTACKS["pair"].play(OF_ORGANISM, context, victim))
    return [only_turn(request) for request in victim.of("respond")]


def test_templates_that_the_base_never_saw_come_first_and_no_disguise_twice():
    tried = prompts(streams=5, iterations=8)
    assert set(tried[:5]) == {forms.phrase(text, PAIR) for text in forms.ROLE_PLAYS_HELD_OUT}
    assert len(set(tried)) == 40
    assert OF_ORGANISM.prompt not in tried
    assert any("decode" in text for text in tried[5:8]), "the other families take turns"


def test_after_the_last_disguise_it_begins_again():
    count = len(set(prompts(streams=10, iterations=10)))
    tried = prompts(streams=1, iterations=count + 1)
    assert tried[-1] == tried[0]


def test_the_order_depends_on_the_seed():
    assert prompts(3, 2) == prompts(3, 2)
    assert any(prompts(3, 2) != prompts(3, 2, seed) for seed in (1, 2, 3))


def test_other_messages_are_not_understood():
    with pytest.raises(ValueError, match="PAIR's instructions"):
        asyncio.run(cast(Any, organism_attacker()([{"role": "user", "content": "Hello"}])))
