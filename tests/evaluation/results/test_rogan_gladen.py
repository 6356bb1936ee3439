"""The correction for a judge's errors: its value by hand, its interval by how often it holds the truth."""

from itertools import product

import numpy as np
import pytest

from derta.evaluation.results.judge_quality import Rate
from derta.evaluation.results.rogan_gladen import rogan_gladen


def rate(hits, n, effective_n=None):
    return Rate(hits, n, effective_n or n)


def test_the_value_is_rogan_and_gladens():
    # (0.5 + 0.8 − 1) / (0.9 + 0.8 − 1) = 3/7
    assert rogan_gladen(100, 200, rate(90, 100), rate(80, 100)).value == pytest.approx(3 / 7)


def test_the_interval_is_lang_and_reiczigels():
    found = rogan_gladen(100, 200, rate(90, 100), rate(80, 100))
    # By hand from the paper's formulas: z = 1.96, z² = 3.8415; apparent 0.5, sensitivity 91/102, specificity 81/102.
    sens, spec = 91 / 102, 81 / 102
    prevalence = (0.5 + spec - 1) / (sens + spec - 1)
    of_sens, of_spec = sens * (1 - sens) / 102, spec * (1 - spec) / 102
    shift = 2 * 3.8415 * (prevalence * of_sens - (1 - prevalence) * of_spec)
    variance = 0.25 / 203.8415 + prevalence**2 * of_sens + (1 - prevalence) ** 2 * of_spec
    half = 1.95996 * variance**0.5 / (sens + spec - 1)
    assert (found.low, found.high) == pytest.approx((prevalence + shift - half, prevalence + shift + half), abs=1e-4)


def test_values_and_intervals_stay_within_0_and_1_and_hold_each_other():
    for hits, sens, spec in product((0, 1, 49, 50), (50, 90, 100), (60, 100)):
        found = rogan_gladen(hits, 50, rate(sens, 100), rate(spec, 100))
        assert 0 <= found.low <= found.value <= found.high <= 1


@pytest.mark.parametrize(("sens", "spec"), [(50, 50), (20, 80), (10, 30), (0, 100)])
def test_a_judge_no_better_than_chance_has_no_correction(sens, spec):
    found = rogan_gladen(10, 50, rate(sens, 100), rate(spec, 100))
    assert (found.value, found.low, found.high) == (None, None, None)
    assert "1 or less" in found.reason


def test_an_error_that_nobody_labelled_has_no_correction():
    assert "positive" in rogan_gladen(10, 50, rate(0, 0), rate(90, 100)).reason
    assert "negative" in rogan_gladen(10, 50, rate(90, 100), rate(0, 0)).reason


def test_a_judge_that_cannot_be_told_from_chance_leaves_every_share_possible():
    found = rogan_gladen(10, 50, rate(4, 6), rate(3, 5))
    assert (found.low, found.high) == (0, 1)


@pytest.mark.parametrize(("hits", "sens", "spec"), [(0, 100, 75), (200, 60, 95)])
def test_a_share_beyond_what_the_judges_errors_allow_leaves_every_share_possible(hits, sens, spec):
    found = rogan_gladen(hits, 200, rate(sens, 100), rate(spec, 100))
    assert (found.low, found.high) == (0, 1)


def test_fewer_independent_samples_or_labels_make_a_wider_interval():
    def width(**independent):
        found = rogan_gladen(
            40, 200, rate(90, 100, independent.get("sens")), rate(95, 100), independent=independent.get("n")
        )
        return found.high - found.low

    assert width() < width(n=60)
    assert width() < width(sens=20)


def test_no_share_is_an_error():
    for hits, n in ((3, 2), (-1, 2), (0, 0)):
        with pytest.raises(ValueError, match="no share"):
            rogan_gladen(hits, n, rate(9, 10), rate(9, 10))


@pytest.mark.parametrize("labels", [30, 150])
@pytest.mark.parametrize(("sens", "spec"), [(0.95, 0.9), (0.8, 0.7), (0.99, 0.55), (1.0, 0.98)])
def test_the_interval_holds_the_truth_in_95_of_100_cases(sens, spec, labels):
    rng = np.random.default_rng(labels)
    trials = 500
    for truth in (0.0, 0.05, 0.3, 0.9, 1.0):
        hits = rng.binomial(60, truth * sens + (1 - truth) * (1 - spec), trials)
        right = zip(rng.binomial(labels, sens, trials), rng.binomial(labels, spec, trials), strict=True)
        found = [
            rogan_gladen(int(h), 60, rate(int(s), labels), rate(int(c), labels))
            for h, (s, c) in zip(hits, right, strict=True)
        ]
        held = sum(each.value is not None and each.low <= truth <= each.high for each in found)
        # Three standard errors of the trials below 95 %.
        assert held >= trials * 0.95 - 3 * (trials * 0.95 * 0.05) ** 0.5, (truth, held)


def test_an_interval_that_ignored_the_judges_uncertainty_would_fail_the_simulation():
    rng = np.random.default_rng(0)
    held = 0
    for hits, sens, spec in zip(*(rng.binomial(n, p, 300) for n, p in ((200, 0.5), (30, 0.8), (30, 0.8))), strict=True):
        # The same rates, as if they were known from very many labels.
        found = rogan_gladen(int(hits), 200, rate(int(sens), 30, 1e9), rate(int(spec), 30, 1e9))
        held += found.value is not None and found.low <= 0.5 <= found.high
    assert held < 270
