"""Krippendorff's α against published values."""

import pytest

from derta.evaluation.results.agreement import krippendorff_alpha

# Krippendorff's own example: four observers, twelve units, missing values.
OBSERVERS = ["123321412...", "1233224125.3", ".3332342251.", "12332441251."]
UNITS = [[None if value == "." else value for value in unit] for unit in zip(*OBSERVERS, strict=True)]


def test_alpha_agrees_with_krippendorffs_example():
    found = krippendorff_alpha(UNITS)
    assert found.alpha == pytest.approx(0.743, abs=5e-4)
    assert found.units == 11
    assert found.ci_low < found.alpha < found.ci_high <= 1


def test_two_judges_without_missing_verdicts():
    """Krippendorff's binary example of ten units: α = 0.095."""
    one, other = "0100000000", "1110010010"
    units = [list(pair) for pair in zip(one, other, strict=True)]
    assert krippendorff_alpha(units).alpha == pytest.approx(0.095, abs=5e-4)


def test_perfect_agreement_is_one_and_constant_verdicts_have_none():
    assert krippendorff_alpha([["a", "a"], ["b", "b"], ["a", None]]).alpha == 1.0
    assert krippendorff_alpha([["a", "a"], ["a", "a"]]).alpha is None
    assert krippendorff_alpha([["a", None], [None, "b"]]) == krippendorff_alpha([])
    assert krippendorff_alpha([]).units == 0


def test_the_interval_depends_on_the_seed_alone():
    assert krippendorff_alpha(UNITS, seed=3) == krippendorff_alpha(UNITS, seed=3)
    assert krippendorff_alpha(UNITS, seed=3).ci_low != krippendorff_alpha(UNITS, seed=4).ci_low
    wide, narrow = krippendorff_alpha(UNITS), krippendorff_alpha(UNITS * 20)
    assert narrow.ci_high - narrow.ci_low < (wide.ci_high - wide.ci_low) / 3
