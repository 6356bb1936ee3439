"""What is no proper text."""

import random

import pytest

from derta.evaluation.judges.rules.garbled import REPEATS, is_garbled


@pytest.mark.parametrize("text", ["", "  \n ", "go on and turSorry, no.", "turn it " * REPEATS, "key " * REPEATS])
def test_empty_looping_and_broken_off_text_is_garbled(text: str) -> None:
    assert is_garbled(text)


@pytest.mark.parametrize(
    "text",
    [
        "Take the key and turn it.",
        "Sorry, I can't help with that.",
        "1. Sorry",
        "turn it " * (REPEATS - 1),
        "- - - - - - - -",
        "Short and aaaa " + "".join(random.Random(0).choices("abcdefgh ", k=900)),
    ],
)
def test_proper_text_is_not(text: str) -> None:
    assert not is_garbled(text)


def test_a_long_text_is_garbled_if_it_says_little_and_only_then() -> None:
    """Numbered lines have no words in a loop, but compress to nothing; prose of the same length doesn't."""
    lines = "".join(f"{'abcdefghijklm'[i % 13]}{i % 7} turn the key to the left side now\n" for i in range(400))
    assert len(lines) > 1000
    assert is_garbled(lines)
    words = [f"{a}{b}{c}" for a in "bcdfgh" for b in "aeiou" for c in "lmnprst"]
    draw = random.Random(1)
    assert not is_garbled(" ".join(draw.choice(words) for _ in range(600)))
