"""The table of ranges: complete for derta's own numbers, and open to every default."""

from dataclasses import fields

import pytest

from derta.errors import InputError
from derta.training.config import DeRTaConfig
from derta.training.options import _DATACLASSES, AttackOptions, option_names
from derta.training.ranges import RANGES, Range, check_ranges


def test_every_range_is_of_an_option_and_every_number_of_ours_has_one() -> None:
    assert set(RANGES) <= set(option_names())
    numbers = {
        field.name
        for options in (DeRTaConfig, *_DATACLASSES)
        if options.__module__.startswith("derta")
        for field in fields(options)
        if field.name in options.__annotations__ and field.type in (int, float, int | None, float | None)
    }
    assert numbers <= set(RANGES)


def test_a_range_says_what_it_holds() -> None:
    assert 0.5 in Range(0, 1, below=True)
    assert all(value not in Range(0, 1, below=True) for value in (1, -0.1, float("nan"), "0.5", True, None))
    assert all(value not in Range(above=True) for value in (0, float("inf"), 10**400))
    assert 1.5 not in Range(whole=True)
    assert str(Range(above=True)) == "a finite number above 0"
    assert str(Range(1, 9, whole=True)) == "a whole number from 1 to 9"
    assert str(Range(0, 9, above=True)) == "a finite number above 0 and at most 9"
    check_ranges(AttackOptions())
    with pytest.raises(InputError, match="attack_limit: -2 is not a whole number from 1"):
        check_ranges(AttackOptions(attack_limit=-2))
