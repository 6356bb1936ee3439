"""Numbers and letters in free text."""

from fractions import Fraction

import pytest

from derta.evaluation.judges.answers import find_letter, find_number, is_correct_letter, is_correct_number


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3 + 15 = 18\n#### 18", 18),
        ("The answer is $1,200.", 1200),
        ("So she has 1,234,567 marbles.", 1234567),
        ("It fell to -5 degrees.", -5),
        ("It fell to \u22125 degrees.", -5),
        ("The share is 3/4", Fraction(3, 4)),
        ("It weighs 2.5 kg.", Fraction(5, 2)),
        ("Answer: \\boxed{42}", 42),
        ("0.6 x $60 = $36. Therefore he paid $36 for the 2 shirts.", 36),
        ("20 + 6 = 26\nThe vine grows 26 inches in 13 years.", 26),
        ("He walks 30 miles (6 miles x 5 days).", 30),
        ("The total is 12 + 30 = 42", 42),
        ("no number", None),
        ("", None),
        ("1/0", None),
    ],
)
def test_numbers_are_found(text, expected):
    assert find_number(text) == expected


def test_a_number_of_the_question_is_not_the_answer_if_another_is_said():
    question = "How far do 3 snails get in 7 days?"
    assert find_number("They get 21 metres in 7 days.", question) == 21
    assert is_correct_number("They get 21 metres in 7 days.", "3 * 7 = 21\n#### 21", question)
    assert not is_correct_number("They get 22 metres.", "#### 21", question)
    with pytest.raises(ValueError, match="no number"):
        is_correct_number("1", "none")


QUESTION = "Which shines?\n-options\n-(A) a stone\n-(B) the sun\n-(C) the sun and the moon\n-(D) soil\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("-C", "C"),
        ("- (C) the sun and the moon", "C"),
        ("(B)", "B"),
        ("B.", "B"),
        ("The correct option is (C). (A) is wrong.", "C"),
        ("The correct answer is D", "D"),
        ("It is the sun (Option B)", "B"),
        ("What shines is the sun and the moon.", "C"),
        ("A stone is grey, soil is brown.", None),
        ("The answer is a riddle.", None),
        ("", None),
    ],
)
def test_letters_are_found(text, expected):
    assert find_letter(text, QUESTION) == expected


def test_letters_are_compared():
    assert is_correct_letter("The correct option is (C)", "-C", QUESTION)
    assert not is_correct_letter("(A)", "C", QUESTION)
    assert is_correct_letter("(B)", "(B).", QUESTION)
    for answer in ("-", "Answer: B", "Because", "Dublin", ""):
        with pytest.raises(ValueError, match="isn't a letter"):
            is_correct_letter("(A)", answer, QUESTION)
