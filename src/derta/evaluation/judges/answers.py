"""Answers of GSM8K and MMLU in free text.

Zero-shot, as the paper asks them: GSM8K without a format, so that the number has to be found; MMLU with options as
lines `-(A) …`. GSM8K: Cobbe et al., arXiv 2110.14168; MMLU: Hendrycks et al., arXiv 2009.03300.
"""

import re
from fractions import Fraction

_NUMBER = re.compile(
    r"(?<![\w.:])[-\u2212]?\$?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?: ?/ ?\d+(?:\.\d+)?)?|"
    r"(?<![\w])[-\u2212]?\$?\.\d+"
)
# "= 36", "=36>>", "is equal to $36"
_RESULT = re.compile(r"(?:=|\bequals|\bequal to)\s{0,4}([-\u2212]?\$?[\d.,/]{1,30})")
_ASIDE = re.compile(r"\([^()\n]{0,200}\)")
_SENTENCE = re.compile(r"(?<=[.!?])\s|\n")
_MARKED = (
    re.compile(r"####\s*([^\n]{1,200})"),
    re.compile(r"\\boxed\{([^{}]{1,100})\}"),
    re.compile(r"(?i)\b(?:final )?answer(?: is|:| =)\s*:?\s*([^\n]{1,200})"),
)
_OPTION = re.compile(r"(?m)^\s*-?\s*\(([A-J])\)\s*(.+?)\s*$")
_STATED = (
    re.compile(
        r"\b(?i:correct|right|best|most likely|final) (?:\w{1,12} )?(?i:option|answer|choice|"
        r"statement)\b[^.\n]{0,80}?"
        r"(?:\bis\b|:|\bwould be\b)[\s:*\"'-]{0,4}\(?([A-J])(?:\)|[.:,]|\s*$)"
    ),
    re.compile(r"\b(?i:option|answer|choice)(?: is|:)?[\s:*\"'-]{0,4}\(?([A-J])\b(?!['\u2019])"),
    re.compile(r"\(([A-J])\)"),
)
_LEADING = re.compile(r"\A[\s\-*\"']*\(?([A-J])(?:\)|[.:,]|\s*\Z|\s*\n)")


def find_number(text: str, question: str = "") -> Fraction | None:
    """Return the number that a text gives as its answer, or `None`.

    What is marked as the answer ("#### 18", a box, "The answer is $1,200.") counts first. Else it is a number of the
    last sentence that has any: the last result of a calculation that it repeats ("… = $36. So 2 shirts cost $36"), or
    the first number that `question` doesn't hold, or the last.
    """
    for mark in _MARKED:
        marked = mark.findall(text)
        if marked and (numbers := _NUMBER.findall(marked[-1])):
            # "The answer is 3 x 4 = 12": the result stands last, "18 dollars in 2 days" first.
            return _value(numbers[-1] if "=" in marked[-1] else numbers[0])
    sentences = [sentence for sentence in _SENTENCE.split(_ASIDE.sub("", text)) if _NUMBER.search(sentence)]
    if not sentences:
        return _last(text)
    last = sentences[-1]
    if "=" in last:
        return _last(last.rpartition("=")[2]) or _last(last)
    said = _values(last)
    results = _values(" ".join(_RESULT.findall(text)))
    repeated = [value for value in said if value in results]
    if repeated:
        return max(repeated, key=lambda value: _rindex(results, value))
    known = _values(question)
    return next((value for value in said if question and value not in known), said[-1] if said else None)


def _last(text: str) -> Fraction | None:
    values = _values(text)
    return values[-1] if values else None


def _values(text: str) -> list[Fraction]:
    return [value for number in _NUMBER.findall(text) if (value := _value(number)) is not None]


def _rindex(values: list[Fraction], value: Fraction) -> int:
    return len(values) - 1 - values[::-1].index(value)


def _value(number: str) -> Fraction | None:
    top, _, bottom = re.sub(r"[$, ]", "", number).replace("\u2212", "-").partition("/")
    try:
        return Fraction(top) / Fraction(bottom or "1")
    except ZeroDivisionError:
        return None


def is_correct_number(response: str, answer: str, question: str = "") -> bool:
    """Whether a response gives the number of a GSM8K answer (`… #### number`)."""
    gold, found = find_number(answer), find_number(response, question)
    if gold is None:
        raise ValueError("the answer holds no number")
    return found is not None and abs(found - gold) < Fraction(1, 1000)


def find_letter(response: str, question: str = "") -> str | None:
    """Return the option that a response chooses, or `None`.

    A leading letter counts first ("- (C)"), then the first that is stated ("The correct option is (C)"), called an
    option or bracketed, and last an option's own text, where one option alone is quoted.
    """
    for pattern in (_LEADING, *_STATED):
        if match := pattern.search(response):
            return match.group(1)
    return _quoted(response, question)


def _quoted(response: str, question: str) -> str | None:
    said = _words(response)
    options = {letter: _words(text) for letter, text in _OPTION.findall(question)}
    named = [letter for letter, text in options.items() if text and f" {text} " in f" {said} "]
    # An option may be part of another: then the longer one is meant.
    longest = max(named, key=lambda letter: len(options[letter]), default=None)
    return longest if longest and all(options[letter] in options[longest] for letter in named) else None


def _words(text: str) -> str:
    return " ".join(re.findall(r"[\w.%$*+/^=-]+", text.lower())).rstrip(".")


def is_correct_letter(response: str, answer: str, question: str) -> bool:
    """Whether a response chooses the option of an MMLU answer (`C` or `-C`)."""
    gold = re.fullmatch(r"\s*-?\s*\(?([A-J])[).:]*\s*", answer)
    if gold is None:
        raise ValueError("the answer isn't a letter")
    return find_letter(response, question) == gold.group(1)
