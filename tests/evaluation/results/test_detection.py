"""Numbers of detectors, against plain counting and against simulation."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from derta.errors import InputError
from derta.evaluation.results.detection import (
    Trace,
    auroc,
    auroc_interval,
    auroc_rows,
    conformal_threshold,
    detection_rows,
    false_stop_row,
)

SCORES = st.lists(st.integers(0, 5).map(float), min_size=1, max_size=20)


@given(SCORES, SCORES)
def test_auroc_is_scikit_learns(harmful, harmless):
    labels = [1] * len(harmful) + [0] * len(harmless)
    assert auroc(harmful, harmless) == pytest.approx(roc_auc_score(labels, [*harmful, *harmless]))


@given(st.floats(0, 1), st.integers(1, 500), st.integers(1, 500))
def test_the_interval_holds_its_value_and_is_narrower_with_more_answers(value, m, n):
    low, high = auroc_interval(value, m, n)
    assert 0 <= low <= value <= high <= 1
    assert high - low > 0
    wide = auroc_interval(value, 10, 10)
    narrow = auroc_interval(value, 1000, 1000)
    assert narrow[1] - narrow[0] < wide[1] - wide[0]


def test_the_interval_covers_the_truth():
    # Scores of two normal distributions whose AUROC is 0.76.
    rng = random.Random(0)
    covered = 0
    for _ in range(200):
        harmful = [rng.gauss(1, 1) for _ in range(30)]
        harmless = [rng.gauss(0, 1) for _ in range(30)]
        low, high = auroc_interval(auroc(harmful, harmless), 30, 30)
        covered += low <= 0.7602 <= high
    assert covered >= 180


def trace(*scores, prompt="a", group="prefill", is_harmful=True):
    return Trace(prompt, group, is_harmful, scores)


def test_answers_are_told_apart_at_the_depths_that_both_reach():
    harmful = [trace(0.9, 0.2, 0.9, prompt=p) for p in "ab"]
    harmless = [trace(0.1, 0.3, prompt=p, is_harmful=False) for p in "cd"]
    rows = auroc_rows("model", harmful, harmless, "prefill", "helpful", (0, 1, 2))
    assert [(row.depth, row.value) for row in rows] == [(0, 1.0), (1, 0.0)]
    assert all(row.ci_low <= row.value <= row.ci_high for row in rows)


def test_detection_counts_the_tokens_that_were_written_before_the_alarm():
    traces = [trace(0.9, 0, prompt="a"), trace(0, 0, 0.9, prompt="b"), trace(0, 0, 0, prompt="c")]
    rows = detection_rows("model", traces, "prefill", 0.5, 1, (0, 1, 2))
    found = {(row.metric, row.depth): row.value for row in rows}
    third = pytest.approx(100 / 3)
    assert [found["detection", depth] for depth in (0, 1)] == [third, third]
    assert found["detection", 2] == found["detection", None] == pytest.approx(200 / 3)
    assert found["tokens_until_detection", None] == 1
    # Of the second, one token had left; of the third, all.
    assert found["released", None] == pytest.approx(200 / 3)


def test_scores_that_are_no_numbers_are_alarms():
    assert trace(0.0, float("nan")).alarm(0.5) == 1
    assert false_stop_row("model", [trace(float("nan"))], "helpful", 0.5).value == 100


@pytest.mark.parametrize("rate", [1, 5, 10])
def test_the_conformal_bound_holds_on_average_over_redraws(rate):
    rng = random.Random(rate)
    stopped, asked = 0, 0
    for _ in range(200):
        scores = [rng.betavariate(0.5, 8) for _ in range(300)]
        threshold = conformal_threshold(scores[:200], rate)
        stopped += sum(score > threshold for score in scores[200:])
        asked += 100
    # The mean of 20,000 answers: within three standard errors of redraws, and not idle.
    assert 0.4 * rate < 100 * stopped / asked < rate + 0.3 * rate**0.5


def test_the_bound_holds_where_scores_are_equal():
    assert sum(score > conformal_threshold([0.0] * 100, 1) for score in [0.0] * 100) == 0


def test_too_few_answers_are_said_to_be_too_few():
    with pytest.raises(InputError, match="98 harmless answers can't bound false stops by 1 %; give 99 or more"):
        conformal_threshold([0.0] * 98, 1)
    assert conformal_threshold([*([0.0] * 98), 1.0], 1) == 1.0
    with pytest.raises(InputError, match="no rate"):
        conformal_threshold([0.0], 0)
