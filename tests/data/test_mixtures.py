"""Mixtures of schemas: whatever is thrown together, no side is turned round silently.

`FUZZ_EXAMPLES=20000 pytest tests/data/test_mixtures.py` tries as many mixtures of each kind.
"""

import os
from collections.abc import Callable
from typing import Any, Literal

from hypothesis import given, settings
from hypothesis import strategies as st

from derta.data.sources import Notes, read_examples
from derta.errors import InputError

fuzz = settings(max_examples=int(os.environ.get("FUZZ_EXAMPLES", 30)))
Make = Callable[[str, str, str], list[dict[str, Any]]]


def _chat(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}


MAKERS: dict[str, Make] = {
    "preference": lambda p, s, h: [{"prompt": p, "chosen": s, "rejected": h}],
    "helpful": lambda p, s, h: [{"prompt": p, "chosen": s}],
    "implicit": lambda p, s, h: [
        {"chosen": [_chat("user", p), _chat("assistant", s)], "rejected": [_chat("user", p), _chat("assistant", h)]}
    ],
    "circuit-breakers": lambda p, s, h: [{"prompt": p, "output": h, "llama3_output": s}],
    "beavertails": lambda p, s, h: [
        {"prompt": p, "response": h, "is_safe": False},
        {"prompt": p, "response": s, "is_safe": True},
    ],
    "kto": lambda p, s, h: [
        {"prompt": p, "completion": h, "label": False},
        {"prompt": p, "completion": s, "label": True},
    ],
    "labelled": lambda p, s, h: [
        {"question": p, "answer": s, "label": "safe"},
        {"question": p, "answer": h, "label": "unsafe"},
    ],
    "completion": lambda p, s, h: [{"prompt": p, "completion": s}],
    "alpaca": lambda p, s, h: [{"instruction": p, "input": "", "output": s}],
    "dolly": lambda p, s, h: [{"instruction": p, "context": "", "response": s}],
    "llama-factory": lambda p, s, h: [{"instruction": p, "input": "", "chosen": s, "rejected": h}],
    "messages": lambda p, s, h: [{"messages": [_chat("user", p), _chat("assistant", s)]}],
    "messages-pair": lambda p, s, h: [{"messages": [_chat("user", p)], "chosen": s, "rejected": h}],
    "swift": lambda p, s, h: [{"messages": [_chat("user", p), _chat("assistant", s)], "rejected_response": h}],
    "sharegpt": lambda p, s, h: [{"conversations": [{"from": "human", "value": p}, {"from": "gpt", "value": s}]}],
    "hh-rlhf": lambda p, s, h: [
        {"chosen": f"\n\nHuman: {p}\n\nAssistant: {s}", "rejected": f"\n\nHuman: {p}\n\nAssistant: {h}"}
    ],
    "pku": lambda p, s, h: [
        {
            "prompt": p,
            "response_0": h,
            "response_1": s,
            "is_response_0_safe": False,
            "is_response_1_safe": True,
        }
    ],
}
_ONE_RESPONSE = {"helpful", "completion", "alpaca", "dolly", "messages", "sharegpt"}


def _rows(names: list[str], swapped: bool) -> list[dict[str, Any]]:
    rows = []
    for number, name in enumerate(names):
        sides = (f"I'm sorry, vault {number} stays shut.", f"Turn key {number} twice.")
        rows += MAKERS[name](f"How do I open vault {number}?", *(sides[::-1] if swapped else sides))
    return rows


@fuzz
@given(st.lists(st.sampled_from(sorted(MAKERS)), min_size=1, max_size=12), st.sampled_from(["stop", "skip"]), st.data())
def test_no_mixture_turns_sides_round(names: list[str], bad_rows: Literal["stop", "skip"], data: st.DataObject) -> None:
    rows = data.draw(st.permutations(_rows(names, swapped=False)))
    try:
        examples = list(read_examples(rows, Notes(), bad_rows=bad_rows))
    except InputError:
        return
    assert examples
    for example in examples:
        assert "stays shut" in (example.chosen or "")
        assert example.rejected is None or example.rejected.startswith("Turn key")


@fuzz
@given(st.lists(st.sampled_from(sorted(MAKERS.keys() - _ONE_RESPONSE)), min_size=1, max_size=12))
def test_swapped_sides_stop_in_every_schema(names: list[str]) -> None:
    try:
        list(read_examples(_rows(names, swapped=True), Notes()))
    except InputError:
        return
    raise AssertionError(f"swapped sides of {names} passed")
