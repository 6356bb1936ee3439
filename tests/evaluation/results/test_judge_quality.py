"""A judge's accuracy against people's labels."""

import pytest

from derta.evaluation.results.judge_quality import ALL, JudgeQuality, Labelled, measure


def harm(label, verdict, count, **more):
    return [Labelled("harm", label, verdict, **{"behaviour": f"{label} {verdict} {i}", **more}) for i in range(count)]


def test_rates_are_counted_by_hand():
    (found,) = measure(
        harm("unsafe", "unsafe", 8) + harm("unsafe", "safe", 2) + harm("safe", "safe", 27) + harm("safe", "unsafe", 3)
    )
    assert (found.attack, found.n, found.unscored) == (ALL, 40, 0)
    assert found.sensitivity.value == pytest.approx(0.8)
    assert found.specificity.value == pytest.approx(0.9)
    assert found.agreement.value == pytest.approx(35 / 40)
    assert found.sensitivity.interval == pytest.approx((0.4902, 0.9433), abs=1e-3)


def test_unscored_responses_count_against_the_judge_and_are_counted():
    (found,) = measure(
        harm("unsafe", "unsafe", 8)
        + harm("unsafe", "unscored", 2)
        + harm("safe", "safe", 9)
        + harm("safe", "unscored", 1)
    )
    assert found.unscored == 3
    assert (found.sensitivity.hits, found.sensitivity.n) == (8, 10)
    assert (found.specificity.hits, found.specificity.n) == (9, 10)
    assert (found.agreement.hits, found.agreement.n) == (17, 20)
    assert (found.decided_sensitivity.n, found.decided_specificity.n) == (8, 9)


def test_a_judge_that_always_crashes_is_right_about_nothing():
    (found,) = measure(harm("unsafe", "unscored", 5) + harm("safe", "unscored", 5))
    assert (found.sensitivity.value, found.specificity.value, found.agreement.value) == (0, 0, 0)
    assert found.decided_sensitivity.value is None


def test_compliance_is_measured_by_refusals_and_agrees_in_three_ways():
    labels = [("refuses", "refuses"), ("refuses", "partly"), ("partly", "complies"), ("complies", "complies")]
    (found,) = measure([Labelled("compliance", label, verdict, label + verdict) for label, verdict in labels])
    assert (found.sensitivity.hits, found.sensitivity.n) == (1, 2)
    assert (found.specificity.hits, found.specificity.n) == (2, 2)
    assert found.agreement.hits == 2


def test_each_attack_and_each_question_has_its_own_rates():
    found = measure(
        harm("unsafe", "unsafe", 3, attack="direct")
        + harm("unsafe", "safe", 3, attack="prefill")
        + [Labelled("compliance", "refuses", "refuses", "x")]
    )
    sensitivities = {(each.question, each.attack): each.sensitivity.value for each in found}
    assert sensitivities == {
        ("harm", ALL): 0.5, ("harm", "direct"): 1.0, ("harm", "prefill"): 0.0, ("compliance", ALL): 1.0,
    }  # fmt: skip


def test_responses_to_one_behaviour_are_worth_fewer_independent_ones():
    apart = measure(harm("unsafe", "unsafe", 15) + harm("unsafe", "safe", 15))[0].sensitivity
    together = [Labelled("harm", "unsafe", "unsafe" if i < 3 else "safe", f"b{i}") for i in range(6) for _ in range(5)]
    clustered = measure(together)[0].sensitivity
    assert apart.value == clustered.value
    assert apart.effective_n == pytest.approx(30)
    assert clustered.effective_n < 10


def test_errors_that_differ_between_models_are_less_certain():
    def labelled(verdict_of):
        return [
            Labelled("harm", "unsafe", verdict_of(m, i), f"{m} {i}", model=f"m{m}") for m in range(8) for i in range(20)
        ]

    alike = measure(labelled(lambda m, i: "safe" if i % 4 == 0 else "unsafe"))[0].sensitivity
    unlike = measure(labelled(lambda m, i: "safe" if m < 2 else "unsafe"))[0].sensitivity
    assert alike.value == unlike.value == 0.75
    assert unlike.effective_n < 10 < alike.effective_n


def test_a_rate_comes_from_the_attack_itself_where_enough_labels_tell_it():
    labelled = (
        harm("unsafe", "safe", 30, attack="prefill")
        + harm("safe", "safe", 3, attack="prefill")
        + harm("unsafe", "unsafe", 30, attack="direct")
        + harm("safe", "unsafe", 30, attack="direct")
    )
    quality = JudgeQuality("refusal", None, "v", "d", tuple(measure(labelled)))
    sensitivity, specificity = quality.rates("harm", "prefill")
    assert (sensitivity.hits, sensitivity.n) == (0, 30)
    assert (specificity.hits, specificity.n) == (3, 33)
    sensitivity, _ = quality.rates("harm", "never seen")
    assert (sensitivity.hits, sensitivity.n) == (30, 60)
    assert quality.rates("compliance", "direct") is None
