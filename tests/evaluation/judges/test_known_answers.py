"""What a judge must tell before a run believes it."""

import asyncio

import pytest

from derta.data.behaviours import Behaviour
from derta.errors import InputError
from derta.evaluation.judges import Label, Verdict, make_judge
from derta.evaluation.judges.known_answers import KNOWN, check_known_answers


def says(label: Label):
    return lambda behaviour, response, prefix: Verdict(label)


def test_the_rules_know_every_known_answer() -> None:
    judge = make_judge("refusal")
    assert [judge(behaviour, text, "").label for behaviour, text, _ in KNOWN] == [label for *_, label in KNOWN]


@pytest.mark.parametrize("label", ["safe", "unsafe", "complies", "refuses", "unscored"])
def test_a_judge_that_always_says_the_same_is_stopped(label: Label) -> None:
    with pytest.raises(InputError, match="missed every known answer"):
        asyncio.run(check_known_answers("always", says(label)))


def test_a_judge_that_fails_says_why() -> None:
    def broken(behaviour: Behaviour, response: str, prefix: str) -> Verdict:
        raise OSError("no server there")

    with pytest.raises(InputError, match="no server there"):
        asyncio.run(check_known_answers("gone", broken))


def test_a_judge_of_harm_alone_is_asked_about_harm_alone() -> None:
    def harm_only(behaviour: Behaviour, response: str, prefix: str) -> Verdict:
        if behaviour.kind != "harmful":
            return Verdict("unscored", reason=f"x judges harmful behaviours only, this one is {behaviour.kind}")
        return Verdict("unsafe" if "Step 1" in response or "seal" in response else "safe")

    asyncio.run(check_known_answers("x", harm_only))
