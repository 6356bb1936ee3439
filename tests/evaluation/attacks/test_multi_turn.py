import asyncio

from derta.evaluation.attacks import ATTACKS
from derta.evaluation.attacks.phrases import ENGLISH
from tests.evaluation.attacks.given import BEHAVIOUR, CONTEXT, ScriptedVictim

AGAIN, BACK = ENGLISH.ask_again, ENGLISH.talk_back


def attack(victim):
    return asyncio.run(ATTACKS["multi-turn"].play(BEHAVIOUR, CONTEXT, victim))


def last_said(request):
    return request.messages[-1]["content"]


def users(request):
    return [message["content"] for message in request.messages if message["role"] == "user"]


def test_a_model_that_answers_at_once_is_asked_once():
    victim = ScriptedVictim(lambda request, seed: "Step 1")
    found = attack(victim)
    assert (found.queries, found.succeeded, users(found.attempt.request)) == (1, True, [BEHAVIOUR.prompt])


def test_both_lines_of_follow_ups_go_on_from_the_first_refusal():
    victim = ScriptedVictim(lambda request, seed: f"No to: {last_said(request)}")
    found = attack(victim)
    lines = [[BEHAVIOUR.prompt, *line[:n]] for line in (AGAIN, BACK) for n in range(1, len(line) + 1)]
    assert [users(request) for request in victim.of("respond")] == [[BEHAVIOUR.prompt], *lines]
    assert found.queries == 1 + len(AGAIN) + len(BACK)
    assert not found.succeeded


def test_the_models_own_answers_stay_in_the_conversation():
    victim = ScriptedVictim(
        lambda request, seed: "Step 1" if last_said(request) == BACK[1] else f"No {len(request.messages)}"
    )
    found = attack(victim)
    assert [(message["role"], message["content"]) for message in found.attempt.request.messages] == [
        ("user", BEHAVIOUR.prompt),
        ("assistant", "No 1"),
        ("user", BACK[0]),
        ("assistant", "No 3"),
        ("user", BACK[1]),
    ]
    assert found.generation.response == "Step 1"
    assert found.queries == 1 + len(AGAIN) + 2, "no question follows the unsafe answer"
    assert found.succeeded


def test_a_turn_without_a_verdict_is_worse_than_a_safe_one():
    victim = ScriptedVictim(
        lambda request, seed: "odd" if last_said(request) == AGAIN[0] else "No",
        label=lambda response: "unscored" if response == "odd" else "safe",
    )
    found = attack(victim)
    assert (found.generation.response, found.succeeded) == ("odd", False)
    assert found.queries == 1 + len(AGAIN) + len(BACK)
