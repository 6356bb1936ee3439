"""Intervals and tests against published and counted values."""

from itertools import product
from math import comb

import pytest

from derta.evaluation.results.intervals import (
    effective_n,
    median_interval,
    paired_difference,
    sign_flip_test,
    student_t,
    wilson,
)


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [  # Newcombe 1998, table I, method 3; and Brown, Cai and DasGupta's example of no event
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (29, 29, 0.8830, 1.0),
    ],
)
def test_wilson_agrees_with_published_intervals(hits, n, low, high):
    assert wilson(hits, n) == pytest.approx((low, high), abs=5e-5)


def test_student_t_of_five_seeds():
    low, high = student_t([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (low, high) == pytest.approx((1.0368, 4.9632), abs=1e-4)
    assert student_t([3.0]) == (None, None)


def table(both, second, first, neither):
    """Pairs, each of its own behaviour."""
    pairs = [(True, True)] * both + [(False, True)] * second + [(True, False)] * first + [(False, False)] * neither
    return [[pair] for pair in pairs]


@pytest.mark.parametrize(
    ("counts", "low", "high"),
    [  # Newcombe 1998 (paired), table II, method 10
        ((36, 12, 2, 0), 0.0569, 0.3404),
        ((54, 0, 0, 0), -0.0664, 0.0664),
    ],
)
def test_paired_differences_agree_with_published_intervals(counts, low, high):
    difference, *ends = paired_difference(table(*counts))
    assert difference == pytest.approx((counts[1] - counts[2]) / sum(counts))
    assert ends == pytest.approx([low, high], abs=5e-5)


def test_the_paired_difference_turns_its_sign_with_the_order():
    pairs = table(10, 6, 3, 8)
    value, low, high = paired_difference(pairs)
    turned = paired_difference([[(b, a) for a, b in cluster] for cluster in pairs])
    assert turned == pytest.approx((-value, -high, -low))


def test_copies_of_a_behaviour_add_no_evidence():
    pairs = table(20, 8, 2, 10)
    assert paired_difference([cluster * 4 for cluster in pairs]) == pytest.approx(paired_difference(pairs), abs=5e-3)
    independent = paired_difference([cluster for cluster in pairs for _ in range(4)])
    assert independent[2] - independent[1] < 0.6 * (paired_difference(pairs)[2] - paired_difference(pairs)[1])
    copies = [2 * cluster.count((False, True)) - 2 * cluster.count((True, False)) for cluster in pairs]
    singles = [size // 2 for size in copies]
    assert sign_flip_test(copies) == pytest.approx(sign_flip_test(singles))


def test_effective_n_lies_between_behaviours_and_samples():
    assert effective_n([[1], [0], [1]]) == 3
    assert effective_n([[1, 1], [0, 0], [1, 1]]) == 3
    assert effective_n([[0, 0], [0, 0]]) == 2
    assert effective_n([[1, 0], [0, 1], [1, 0]]) == 6


@pytest.mark.parametrize(("gained", "lost"), [(12, 2), (5, 5), (0, 6), (0, 0), (300, 220)])
def test_the_sign_flip_test_of_single_pairs_is_mcnemars(gained, lost):
    n = gained + lost
    tail = sum(comb(n, i) for i in range(min(gained, lost) + 1)) / 2**n
    assert sign_flip_test([1] * gained + [-1] * lost + [0] * 7) == pytest.approx(min(2 * tail, 1.0))


def test_the_sign_flip_test_counts_every_choice_of_signs():
    sums = [4, -1, 2, 3, 0, 1]
    totals = [sum(s * x for s, x in zip(signs, sums, strict=True)) for signs in product((1, -1), repeat=len(sums))]
    extreme = sum(abs(total) >= abs(sum(sums)) for total in totals)
    assert sign_flip_test(sums) == pytest.approx(extreme / len(totals))


def test_the_medians_interval_covers_it():
    assert median_interval([3, 1, 2, 5, 4]) == (None, None)
    assert median_interval([6, 3, 1, 2, 5, 4]) == (1, 6)
    # Conover's table: for 20 values the 6th and the 15th.
    assert median_interval(list(range(1, 21))) == (6, 15)
