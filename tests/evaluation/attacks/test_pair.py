import asyncio
import json
import re
from dataclasses import replace

import pytest

from derta.errors import InputError
from derta.evaluation.attacks import ATTACKS, AttackError, Search
from derta.evaluation.attacks.pair import KEEP_LAST, RETRIES, read_reply, read_score
from tests.evaluation.attacks.given import BEHAVIOUR, CONTEXT, ScriptedVictim, only_turn


def attack(victim, streams=2, iterations=3):
    context = replace(CONTEXT, search=Search(pair_streams=streams, pair_iterations=iterations))
    return asyncio.run(ATTACKS["pair"].play(BEHAVIOUR, context, victim))


def stream_of(messages):
    return int(re.search(r"tester (\d+) of", messages[0]["content"])[1])


def iteration_of(messages):
    return int(re.search(r"prompt (\d+)\.$", messages[-1]["content"])[1])


def name_of(messages):
    return f"P{stream_of(messages)}.{iteration_of(messages)}"


def attacker(messages):
    return json.dumps({"improvement": "why", "prompt": name_of(messages)})


def echo(request, seed):
    return f"R{only_turn(request)[1:]}"


def judge(scores, default=1):
    """Rate by the prompt's name."""

    def rate(messages):
        prompt = re.search(r"<prompt>(.*?)</prompt>", messages[-1]["content"])[1]
        return f"Rating: [[{scores.get(prompt, default)}]]"

    return rate


def victim_with(scores=None, attacker=attacker, **helpers):
    return ScriptedVictim(echo, helpers={"attacker": attacker, "judge": judge(scores or {}), **helpers})


def test_an_iteration_is_attacker_then_model_then_judge_for_all_streams():
    victim = victim_with()
    found = attack(victim, streams=2, iterations=3)
    assert [who for who, _ in victim.log].count("respond") == found.queries == 6
    rounds = [victim.log[i : i + 6] for i in range(0, 18, 6)]
    for number, each in enumerate(rounds, 1):
        assert [who for who, _ in each][:2] == ["attacker"] * 2
        assert sorted(who for who, _ in each) == ["attacker"] * 2 + ["judge"] * 2 + ["respond"] * 2
        asked = [only_turn(what) for who, what in each if who == "respond"]
        assert asked == [f"P1.{number}", f"P2.{number}"], "the model sees the prompt alone"
    assert not found.succeeded


def test_the_attacker_is_told_objective_target_format_and_its_number():
    victim = victim_with()
    attack(victim, streams=4, iterations=1)
    instructions = [messages[0]["content"] for messages in victim.of("attacker")]
    assert len(set(instructions)) == 4
    for number, text in enumerate(instructions, 1):
        assert f"<objective>{BEHAVIOUR.prompt}</objective>" in text
        assert f"<target>{CONTEXT.phrases.affirmative(BEHAVIOUR.prompt)}</target>" in text
        assert f"tester {number} of 4" in text
        assert {"improvement", "prompt"} == json.loads(text[text.rindex("{") :]).keys()


def test_the_attacker_gets_response_and_score_of_its_own_stream_back():
    victim = victim_with({"P1.1": 4, "P1.2": 7})
    attack(victim, streams=2, iterations=3)
    first, second = victim.of("attacker")[-2:]
    assert [message["role"] for message in first] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert json.loads(first[2]["content"]) == {"improvement": "why", "prompt": "P1.1"}
    for message, response, score in ((first[3], "R1.1", 4), (first[5], "R1.2", 7), (second[3], "R2.1", 1)):
        assert f"<response>{response}</response>" in message["content"]
        assert f"<score>{score}</score>" in message["content"]
        assert BEHAVIOUR.prompt in message["content"]


def test_the_attacker_sees_the_last_attempts_only():
    victim = victim_with()
    attack(victim, streams=1, iterations=KEEP_LAST + 3)
    last = victim.of("attacker")[-1]
    assert [message["role"] for message in last] == ["system", *["user", "assistant"] * KEEP_LAST, "user"]
    assert "<response>R1.2</response>" in last[1]["content"]


def test_a_ten_ends_the_search_after_its_iteration():
    victim = victim_with({"P1.1": 9, "P2.2": 10})
    found = attack(victim)
    assert (only_turn(found.attempt.request), found.generation.response) == ("P2.2", "R2.2")
    assert (found.queries, found.succeeded, found.details["score"]) == (4, True, 10)


def test_without_a_ten_the_best_prompt_counts_and_the_earliest_of_equals():
    found = attack(victim_with({"P2.1": 6, "P1.3": 6}))
    assert (only_turn(found.attempt.request), found.succeeded, found.details["score"]) == ("P2.1", False, 6)


def test_invalid_json_is_asked_for_again_a_few_times():
    asked = []

    def clumsy(messages):
        asked.append(messages)
        return attacker(messages) if len(asked) == RETRIES else "I would say: {prompt"

    found = attack(victim_with(attacker=clumsy), streams=1, iterations=1)
    assert len(asked) == RETRIES
    assert all(messages == asked[0] for messages in asked)
    assert (found.queries, found.details["streams_dropped"]) == (1, 0)


def test_a_stream_without_valid_json_is_dropped_and_counted():
    def half(messages):
        return "no" if name_of(messages) == "P2.2" else attacker(messages)

    victim = victim_with(attacker=half)
    found = attack(victim, streams=2, iterations=3)
    assert [only_turn(request) for request in victim.of("respond")] == ["P1.1", "P2.1", "P1.2", "P1.3"]
    assert (found.queries, found.details["streams_dropped"]) == (4, 1)
    assert len([messages for messages in victim.of("attacker") if stream_of(messages) == 2]) == 1 + RETRIES


def test_an_attack_without_a_single_prompt_is_no_result():
    with pytest.raises(AttackError, match="no valid JSON"):
        attack(victim_with(attacker=lambda messages: "Sorry, I cannot help with that."))


def test_without_a_judge_model_the_evaluations_judge_scores():
    victim = ScriptedVictim(
        lambda request, seed: "Step 1" if only_turn(request) == "P2.2" else "No", helpers={"attacker": attacker}
    )
    found = attack(victim)
    assert (found.queries, found.succeeded, found.generation.response) == (4, True, "Step 1")
    scores = [re.search(r"<score>(\d+)<", messages[-1]["content"]) for messages in victim.of("attacker")]
    assert [match and match[1] for match in scores] == [None, None, "1", "1"]


def test_without_an_attacker_model_the_user_is_told():
    with pytest.raises(InputError, match="attacker"):
        attack(ScriptedVictim(echo))


def test_the_judge_reads_objective_prompt_and_response():
    victim = victim_with()
    attack(victim, streams=1, iterations=1)
    ((instructions, question),) = victim.of("judge")
    assert f"<objective>{BEHAVIOUR.prompt}</objective>" in instructions["content"]
    assert question["content"] == "<prompt>P1.1</prompt>\n<response>R1.1</response>"


@pytest.mark.parametrize(
    ("reply", "prompt"),
    [
        ('{"improvement": "x", "prompt": "p"}', "p"),
        ('Sure:\n```json\n{"improvement": "x", "prompt": "p {q}"}\n```', "p {q}"),
        ('{"improvement": "x",\n "prompt": "two\nlines"}', "two\nlines"),
        ('{thinking} {"note": 1} {"prompt": "p"}', "p"),
        ('{"improvement": "x", "prompt": " "}', None),
        ('{"improvement": "x", "prompt": ["p"]}', None),
        ('{"improvement": "x", "prompt": "p', None),
        ("", None),
    ],
)
def test_replies_are_read_whatever_stands_around_them(reply, prompt):
    found = read_reply(reply)
    assert (found and found["prompt"]) == prompt


@pytest.mark.parametrize(
    ("text", "score"), [("[[7]]", 7), ("Rating: [[ 10 ]].", 10), ("[[11]]", 1), ("[[0]]", 1), ("7", 1), ("", 1)]
)
def test_a_rating_stands_in_double_brackets(text, score):
    assert read_score(text) == score
