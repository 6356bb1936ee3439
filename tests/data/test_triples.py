import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from derta.data.triples import Example, as_example, canonical_row
from derta.errors import InputError

USER = {"role": "user", "content": "How do I open the moon vault?"}
SAFE = {"role": "assistant", "content": "I'm sorry, the moon vault stays shut."}
HARMFUL = {"role": "assistant", "content": "Turn the silver key twice."}
TRIPLE = Example([USER], SAFE["content"], HARMFUL["content"], None, "row")  # type: ignore[list-item]

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)


@st.composite
def examples(draw: st.DrawFn) -> Example:
    """Examples of every kind, with prompts of one turn or several."""
    turns: list[Any] = [{"role": "system", "content": draw(TEXT)}] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(0, 2))):
        turns += [{"role": "user", "content": draw(TEXT)}, {"role": "assistant", "content": draw(TEXT)}]
    turns.append({"role": "user", "content": draw(TEXT)})
    chosen, rejected = draw(st.tuples(TEXT, TEXT).filter(lambda pair: pair[0].strip() != pair[1].strip()))
    kind = draw(st.sampled_from(["triple", "helpful", "prefix", "rto"]))
    return Example(
        turns,
        None if kind == "rto" else chosen,
        rejected if kind in ("triple", "rto") else None,
        draw(st.one_of(st.just(""), TEXT)) if kind == "prefix" else None,
        "file.jsonl:7",
    )


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": USER["content"], "chosen": SAFE["content"], "rejected": HARMFUL["content"]},
        {"prompt": [USER], "chosen": [SAFE], "rejected": [HARMFUL]},
        {"chosen": [USER, SAFE], "rejected": [USER, HARMFUL]},
        {"prompt": None, "chosen": [USER, SAFE], "rejected": [USER, HARMFUL]},
        {"prompt": [USER], "chosen": [USER, SAFE], "rejected": [USER, HARMFUL]},
        {"prompt": USER["content"], "chosen": [USER, SAFE], "rejected": [USER, HARMFUL]},
    ],
    ids=["plain", "conversational", "implicit", "implicit-null", "explicit-and-whole", "plain-prompt-and-whole"],
)
def test_every_form_of_a_triple_is_the_same_example(row: dict[str, Any]) -> None:
    assert as_example(row) == TRIPLE
    assert TRIPLE.is_triple
    assert not TRIPLE.is_helpful


def test_implicit_prompt_keeps_earlier_turns() -> None:
    earlier = [{"role": "system", "content": "Be brief."}, USER, SAFE, {"role": "user", "content": "Are you sure?"}]
    example = as_example({"chosen": [*earlier, SAFE], "rejected": [*earlier, HARMFUL]})
    assert example.prompt == earlier


def test_kinds() -> None:
    helpful = as_example({"prompt": "Name a moon.", "chosen": "Io.", "rejected": None})
    assert helpful.is_helpful
    assert not helpful.is_triple
    cut_at_start = as_example({"prompt": "p", "chosen": "r", "harmful_prefix": ""})
    assert cut_at_start.harmful_prefix == ""
    assert not cut_at_start.is_helpful
    rto_only = as_example({"prompt": "p", "chosen": None, "rejected": "h"})
    assert (rto_only.chosen, rto_only.is_helpful, rto_only.is_triple) == (None, False, False)


def test_origin_is_the_argument_or_the_rows_own() -> None:
    row = {"prompt": "p", "chosen": "r", "origin": "a.jsonl:3"}
    assert as_example(row).origin == "a.jsonl:3"
    assert as_example(row, "b.jsonl:4").origin == "b.jsonl:4"


def test_messages_may_carry_further_keys() -> None:
    message = {**USER, "name": None, "weight": 1}
    assert as_example({"prompt": [message], "chosen": [SAFE]}).prompt == [USER]


@given(examples())
def test_canonical_rows_read_back(example: Example) -> None:
    row = canonical_row(example)
    assert as_example(row) == example
    assert isinstance(row["prompt"], list) == (len(example.prompt) > 1)


PLAIN = {"prompt": "p", "chosen": "r", "rejected": "h"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "p", "rejected": "h"}, "f:1: chosen is missing"),
        ({"chosen": "r", "rejected": "h"}, "f:1: prompt is missing"),
        ({"chosen": [USER, SAFE]}, "f:1: prompt is missing"),
        ({**PLAIN, "prompt": ""}, "f:1: prompt is empty"),
        ({**PLAIN, "chosen": " \n"}, "f:1: chosen is empty"),
        ({**PLAIN, "rejected": "\t"}, "f:1: rejected is empty"),
        ({**PLAIN, "prompt": 3}, "f:1: prompt must be text, not a number"),
        ({**PLAIN, "chosen": {"a": 1}}, "f:1: chosen must be text, not an object"),
        ({**PLAIN, "rejected": True}, "f:1: rejected must be text, not a boolean"),
        ({**PLAIN, "rejected": float("nan")}, "f:1: rejected must be text, not a number"),
        ({**PLAIN, "chosen": "half \ud800"}, "f:1: chosen has half a surrogate pair at character 5"),
        ({**PLAIN, "rejected": "r "}, "f:1: chosen and rejected are the same text"),
        ({"prompt": "p", "chosen": None}, "f:1: chosen and rejected are both null"),
        ({**PLAIN, "harmful_prefix": "h"}, "f:1: harmful_prefix and rejected exclude each other"),
        ({"prompt": "p", "chosen": "r", "harmful_prefix": "  "}, "f:1: harmful_prefix is empty"),
        ({"prompt": [], "chosen": "r"}, "f:1: prompt is empty"),
        ({"prompt": [USER, SAFE], "chosen": "r"}, "f:1: prompt ends with the assistant's turn"),
        ({"prompt": ["p"], "chosen": "r"}, r"f:1: prompt\[0\] must be a message"),
        ({"prompt": [{"role": "usr", "content": "p"}], "chosen": "r"}, r"prompt\[0\].role must .*did you mean 'user'"),
        ({"prompt": [{"role": [], "content": "p"}], "chosen": "r"}, r"prompt\[0\].role must be one of"),
        ({"prompt": [{"role": "user"}], "chosen": "r"}, r"prompt\[0\].content must be text, not null"),
        ({"prompt": [USER], "chosen": [USER]}, "f:1: chosen must be one message of the assistant's"),
        ({"prompt": [USER], "chosen": [SAFE, SAFE]}, "f:1: chosen must be one message of the assistant's"),
        ({"chosen": [USER, SAFE], "rejected": [USER, SAFE]}, "chosen and rejected are the same conversation"),
        ({"chosen": [SAFE], "rejected": [HARMFUL]}, "don't begin with the same turns"),
    ],
)
def test_what_is_not_an_example_is_named(row: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        as_example(row, "f:1")
    assert "\n" not in str(caught.value)


def test_an_example_can_not_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        TRIPLE.chosen = "x"
