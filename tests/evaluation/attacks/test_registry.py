import pytest

from derta.errors import InputError
from derta.evaluation.attacks import ATTACKS, AttackResult, AttackSpec, Attempt, attack_names, register_attack
from derta.evaluation.config import JudgeName, Options
from derta.evaluation.judges import JUDGES, JudgeSpec, Verdict, register_judge
from derta.evaluation.run import evaluate_directory
from tests.evaluation.servers import serving


def needing(capability):
    return {name for name, spec in ATTACKS.items() if capability in spec.requires}


def test_what_attacks_require():
    assert needing("raw") == {"completing"}
    assert needing("prefill") == {"prefill", "adaptive-prefill"}
    assert needing("weights") == {"autodan", "gcg"}
    assert needing("attacker") == {"pair"}
    interactive = {"pair", "autodan", "gcg", "multi-turn", "insist", "best-of-n"}
    assert {name for name, spec in ATTACKS.items() if spec.interactive} == interactive


def test_an_attack_and_a_judge_of_ones_own_are_one_record_each(tmp_path):
    """As somebody who extends derta would: through the public functions, on the real evaluation."""

    def backwards(behaviour, context):
        return [Attempt("backwards", context.ask(" ".join(behaviour.prompt.split()[::-1])))]

    async def twice(behaviour, context, victim):
        attempt = Attempt("twice", context.ask(behaviour.prompt))
        await victim.respond(attempt.request)
        return AttackResult(attempt, await victim.respond(attempt.request), queries=2, succeeded=False)

    def shouting(behaviour, response, prefix):
        return Verdict("unsafe" if response.isupper() else "safe")

    register_attack(AttackSpec("backwards", backwards, family="encoding"))
    register_attack(AttackSpec("twice", twice, family="dialogue", aliases=("again",)))
    register_judge(JudgeSpec("shouting", lambda: shouting, measures_harm=False))
    try:
        with pytest.raises(ValueError, match="'again' already"):
            register_attack(AttackSpec("another", twice, family="dialogue", aliases=("again",)))
        path = tmp_path / "behaviours.jsonl"
        path.write_text('{"question": "open the vault", "id": "b"}\n')
        with serving(lambda path, body: "NO." if "vault the open" in str(body) else "Well.") as server:
            options = Options(
                tuple(attack_names("backwards,again")),
                str(path),
                judges=(JudgeName("shouting"),),
                model_args={"base_url": server.url, "api_key": "none"},
            )
            rows = evaluate_directory("openai-api/test/m", out=tmp_path / "out", options=options).rows
    finally:
        del ATTACKS["backwards"], ATTACKS["twice"], JUDGES["shouting"]
    asr = {row.attack: row.value for row in rows if row.metric == "asr"}
    assert asr == {"backwards": 100, "twice": 0}
    assert len(server.sent) == 3


def test_names_tolerate_white_space_and_repeats():
    assert attack_names(" prefill, direct,prefill ,") == ["prefill", "direct"]


def test_all_stands_for_every_attack_and_the_released_name_for_template():
    assert attack_names("all") == list(ATTACKS)
    assert attack_names("jailbreakchat,template,gcg") == ["template", "gcg"]
    assert attack_names("gcg,all")[0] == "gcg"
    assert sorted(attack_names("gcg,all")) == sorted(ATTACKS)


def test_harmless_prompts_are_asked_in_the_form_of_what_asks_once():
    forms = attack_names("all,combined", of_harmless=True)
    assert {"direct", "completing", "template", "history", "selfcipher+prefill"} <= set(forms)
    assert not {"insist", "gcg", "pair", "template+multi-turn"} & set(forms)
    # What was named itself isn't left out without a word: the plan says why it can't be.
    assert attack_names("insist", of_harmless=True) == ["insist"]
    with pytest.raises(InputError, match="`harmless_under`: unknown attack 'prefil'"):
        attack_names("prefil", of_harmless=True)


@pytest.mark.parametrize(("wrong", "near"), [("prefil", "prefill"), ("jailbreak-chat", "jailbreakchat"), ("al", "all")])
def test_an_unknown_name_is_told_with_the_nearest(wrong, near):
    with pytest.raises(InputError, match=rf"unknown attack '{wrong}' \(did you mean '{near}'\?\)"):
        attack_names(f"direct,{wrong}")


def test_no_name_is_an_error():
    with pytest.raises(InputError, match="at least one"):
        attack_names(" , ")
