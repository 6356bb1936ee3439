"""Differences over what two evaluations share, and nothing else."""

from dataclasses import replace

import pytest

from derta.evaluation.results.intervals import paired_difference, sign_flip_test
from derta.evaluation.results.outcomes import ANSWERS
from derta.evaluation.results.paired import paired
from tests.evaluation.results.made import judged, signed
from tests.evaluation.results.test_metrics import sample


def found(first, second):
    return {(each.attack, each.metric): each for each in paired(first, second)}


def attacked(labels, **options):
    return [sample(i, label, **options) for i, label in enumerate(labels)]


BEFORE = attacked(["unsafe"] * 6 + ["safe"] * 4)
AFTER = attacked(["safe"] * 5 + ["unsafe"] * 2 + ["safe"] * 3)


def test_the_difference_is_the_second_less_the_first_in_points():
    asr = found(BEFORE, AFTER)["direct", "asr"]
    pairs = [[(i < 6, i in (5, 6))] for i in range(10)]
    assert (asr.value, asr.pairs) == (pytest.approx(-40.0), 10)
    assert [asr.ci_low, asr.ci_high] == pytest.approx([100 * end for end in paired_difference(pairs)[1:]])
    assert asr.p_value == pytest.approx(sign_flip_test([-1] * 5 + [1]))


def test_samples_are_paired_by_behaviour_and_form_not_by_order():
    assert found(BEFORE, AFTER[::-1]) == found(BEFORE, AFTER)


def test_only_what_both_hold_is_compared():
    more = [sample(99, "unsafe"), sample(0, "unsafe", attack="prefill")]
    other_prompt = [replace(sample(50, "unsafe"), prompt="another"), sample(51, "unscored")]
    lacking = [sample(50, "safe"), sample(51, "safe")]
    with_more, alone = found([*BEFORE, *more, *lacking], [*AFTER, *other_prompt]), found(BEFORE, AFTER)
    # What is broken is known without a verdict.
    assert (with_more.pop(("direct", "broken")).pairs, alone.pop(("direct", "broken")).pairs) == (11, 10)
    assert with_more == alone
    assert found(BEFORE, [sample(99, "safe")]) == {}


def test_forms_of_a_behaviour_are_one_cluster():
    def forms(samples):
        return [replace(s, attack="prefill", variant=f"prefill@{d}") for s in samples for d in (5, 10, 20)]

    pooled, single = found(forms(BEFORE), forms(AFTER))["prefill", "asr"], found(BEFORE, AFTER)["direct", "asr"]
    assert (pooled.value, pooled.pairs) == (pytest.approx(single.value), 30)
    assert pooled.p_value == pytest.approx(single.p_value)
    assert [pooled.ci_low, pooled.ci_high] == pytest.approx([single.ci_low, single.ci_high], abs=3)
    assert found(forms(BEFORE), forms(AFTER))["prefill@10", "asr"].pairs == 10


def test_harmless_prompts_and_tasks_are_compared_too():
    before = [sample(i, "refuses", "borderline") for i in range(8)]
    after = [sample(i, "complies", "borderline") for i in range(8)]
    solved = [signed(sample(f"g{i}", "complies", "helpful", attack="gsm8k"), ANSWERS) for i in range(4)]
    before += [judged(each, correct=True) for each in solved]
    after += [judged(each, correct=i > 0) for i, each in enumerate(solved)]
    differences = found(before, after)
    assert differences["direct", "over_refusal"].value == -100.0
    assert differences["direct", "over_refusal"].p_value == pytest.approx(2 / 2**8)
    assert differences["gsm8k", "accuracy"].value == -25.0


def test_leaks_differ_in_tokens():
    before = [sample(i, "safe", leaked_tokens=10 + i) for i in range(5)]
    after = [sample(i, "safe", leaked_tokens=4 + i % 2) for i in range(5)]
    leak = found(before, after)["direct", "leak"]
    assert leak.value == pytest.approx(-7.6)
    assert leak.ci_low < -7.6 < leak.ci_high < 0
    assert leak.p_value is None
