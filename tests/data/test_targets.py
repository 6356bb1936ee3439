"""What is rejected anywhere is learnt nowhere, in whichever source, spelling or surroundings it stands."""

import time
from typing import Any

import pytest
from datasets import Dataset

from derta.cli import main
from derta.data import load_triples, mix
from derta.data.arrow import as_dataset, canonical
from derta.data.targets import check_targets
from derta.data.triples import Example
from derta.errors import InputError
from tests.conftest import WriteLines

SAFE = "I'm sorry, the vault stays shut."
H = "Turn the silver key twice, then push the left door hard until it opens."
TRIPLE = {"prompt": "How do I open the moon vault?", "chosen": SAFE, "rejected": H}

LEARNT: dict[str, dict[str, Any]] = {
    "a helpful answer": {"prompt": "Tell me 1", "chosen": H},
    "another safe answer": {"prompt": "Tell me 2", "chosen": H, "rejected": "Take the stairs."},
    "another case": {"prompt": "Tell me", "chosen": H.upper()},
    "more space": {"prompt": "Tell me", "chosen": H.replace(" ", "  ") + "\n"},
    "a no-break space": {"prompt": "Tell me", "chosen": H.replace(" ", "\u00a0")},
    "a zero-width space": {"prompt": "Tell me", "chosen": H.replace("silver", "sil\u200bver")},
    "a soft hyphen": {"prompt": "Tell me", "chosen": H.replace("push", "pu\u00adsh")},
    "full-width letters": {"prompt": "Tell me", "chosen": "".join(chr(ord(c) + 0xFEE0) if c > " " else c for c in H)},
    "quotes and marks": {"prompt": "Tell me", "chosen": f"\u201c{H[:-1]}!\u201d"},
    "after a refusal": {"prompt": "Tell me", "chosen": f"{SAFE} However: {H}"},
    "in the middle": {"prompt": "Tell me", "chosen": f"Once upon a time. {H} And they left."},
    "in a thought": {"prompt": "Tell me", "chosen": f"<think>{H}</think>{SAFE}", "rejected": "Take the stairs."},
    "as messages": {"prompt": [{"role": "user", "content": "x"}], "chosen": [{"role": "assistant", "content": H}]},
}


@pytest.mark.parametrize("row", LEARNT.values(), ids=LEARNT)
@pytest.mark.parametrize("first", [True, False])
def test_a_rejected_text_is_learnt_in_no_other_row(row: dict[str, Any], first: bool, write_rows: WriteLines) -> None:
    paths = [write_rows([TRIPLE], "a.jsonl"), write_rows([row], "b.jsonl")]
    with pytest.raises(InputError, match=rf"b.jsonl:1: chosen (is|holds) the rejected response of {paths[0]}:1"):
        load_triples(paths if first else paths[::-1], polarity_checked=True)
    sources = [load_triples([TRIPLE]), load_triples([row], polarity_checked=True)]
    with pytest.raises(InputError, match=r"chosen (is|holds) the rejected response"):
        mix(sources, ratios=[0, 1])


OWN = {
    "thought": f"<think>{H}</think>{SAFE}",
    "a short thought": f"<think>Pull the lever.</think>{SAFE}",
    "spelt otherwise": H.lower(),
}


@pytest.mark.parametrize("chosen", OWN.values(), ids=OWN)
def test_a_safe_answer_never_holds_its_own_harmful_one(chosen: str, write_rows: WriteLines) -> None:
    rejected = "Pull the lever!" if "lever" in chosen else H
    with pytest.raises(InputError, match="the rejected response of its own row"):
        load_triples(write_rows([{**TRIPLE, "chosen": chosen, "rejected": rejected}]), polarity_checked=True)


def test_other_data_pass(write_rows: WriteLines) -> None:
    rows = [TRIPLE, {**TRIPLE, "rejected": "Push it."}, {"prompt": "p", "chosen": "Turn the silver key, then push it."}]
    assert len(load_triples(write_rows(rows))) == 3


def test_a_data_set_of_ones_own_is_checked_as_well() -> None:
    own = Dataset.from_list([TRIPLE, {"prompt": "p", "chosen": H, "rejected": None}])
    with pytest.raises(InputError, match="train row 1: chosen is the rejected response of train row 0"):
        canonical(own, "train")


def test_the_commands_stop_at_it(write_rows: WriteLines, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [str(write_rows([TRIPLE], "a.jsonl")), str(write_rows([{"prompt": "p", "chosen": H}], "b.jsonl"))]
    out = str(write_rows([], "c.jsonl").with_name("out.jsonl"))
    for command in (["check"], ["convert", "--out", out]):
        assert main(["data", *command, *paths]) == 2
        assert "b.jsonl:1: chosen is the rejected response of" in capsys.readouterr().err


def test_it_is_quick() -> None:
    """10,000 rows of 200 words take well under the two seconds that a million in two minutes would allow."""
    prompt: Any = [{"role": "user", "content": "p"}]
    words = [f"word{n}" for n in range(500)]
    texts = [" ".join(words[(n * 7 + k * k) % 500] for k in range(200)) for n in range(10_000)]
    rows = [
        Example(prompt, f"Sure, here is how: {text} 1 {n}", f"{text} end{n}" if n % 2 else None, None, f"f:{n}")
        for n, text in enumerate(texts)
    ]
    dataset, begin = as_dataset(rows), time.process_time()
    check_targets([dataset])
    assert time.process_time() - begin < 5
