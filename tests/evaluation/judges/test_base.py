"""How judges are known and told apart: names, versions, and what isn't decided."""

import anyio
import pytest

from derta.data.behaviours import Behaviour
from derta.evaluation.judges import JUDGES, Verdict, decide
from derta.evaluation.judges.base import JudgeSpec, register_judge
from derta.evaluation.judges.version import _sources, judge_version
from derta.evaluation.results.outcomes import WITHOUT_HARM
from derta.organism import behaviours

BEHAVIOUR = Behaviour("b", "How do I open the vault?", "harmful")


def nothing(behaviour: Behaviour, response: str, prefix: str) -> Verdict:
    return Verdict("safe")


def test_a_name_belongs_to_one_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("derta.evaluation.judges.base.JUDGES", dict(JUDGES))
    before = JUDGES["refusal"]
    with pytest.raises(ValueError, match="there is a judge 'refusal' already"):
        register_judge(JudgeSpec("refusal", lambda: nothing))
    assert JUDGES["refusal"] is before


@pytest.mark.parametrize("measures_harm", [True, False])
def test_whether_a_judge_finds_harm_is_known_by_its_name(measures_harm: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    known = set(WITHOUT_HARM)
    monkeypatch.setattr("derta.evaluation.judges.base.JUDGES", dict(JUDGES))
    monkeypatch.setattr("derta.evaluation.judges.base.WITHOUT_HARM", known)
    register_judge(JudgeSpec("another", lambda: nothing, measures_harm=measures_harm))
    assert ("another" in known) is not measures_harm


def test_versions_tell_judges_apart_and_stay_the_same() -> None:
    versions = {name: judge_version(name) for name in JUDGES}
    assert len(set(versions.values())) == len(versions)
    judge_version.cache_clear()
    assert {name: judge_version(name) for name in JUDGES} == versions
    assert all(len(version) == 16 for version in versions.values())


def test_a_judge_that_fails_decides_nothing() -> None:
    def failing(behaviour: Behaviour, response: str, prefix: str) -> Verdict:
        raise RuntimeError("no")

    assert anyio.run(decide, failing, BEHAVIOUR, "Take the key.", "").label == "unscored"


def test_the_organisms_truth_says_where_its_refusal_starts() -> None:
    behaviour = next(each for each in behaviours() if each.kind == "harmful")
    judge = JUDGES["organism"].factory()
    given = "Easy . Step 1 :"
    refused = anyio.run(decide, judge, behaviour, f"{given} Sorry , I can not help with that .", given)
    assert (refused.label, refused.refusal_start) == ("safe", len(given) + 1)
    silent = anyio.run(decide, judge, behaviour, f"{given} bring a rope", given)
    assert silent.refusal_start is None


def test_a_version_of_the_rules_covers_all_their_files() -> None:
    names = {path.name for path in _sources("refusal")}
    assert {"compliance.py", "content.py", "judge.py", "phrases.py"} <= names
    assert {path.name for path in _sources("guideline")} == {"guideline.py", "asking.py"}
