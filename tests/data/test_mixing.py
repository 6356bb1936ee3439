from collections import Counter
from typing import Any

import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from derta.data import as_example, load_triples, mix
from derta.errors import InputError


def source(name: str, size: int, conversational: bool = False, prefix: bool = False) -> Dataset:
    rows = []
    for index in range(size):
        prompt, chosen = f"{name} {index}?", f"{name} {index}."
        row: dict[str, Any] = {"prompt": prompt, "chosen": chosen, "origin": f"{name}:{index}"}
        if conversational:
            row["prompt"] = [{"role": "user", "content": prompt}]
            row["chosen"] = [{"role": "assistant", "content": chosen}]
        rows.append({**row, **({"harmful_prefix": "h"} if prefix else {})})
    return load_triples(rows)


def shares(dataset: Dataset) -> Counter[str]:
    return Counter(origin.split(":")[0] for origin in dataset["origin"])


A, B = source("a", 10), source("b", 40)


def test_without_ratios_everything_is_there_once_and_shuffled() -> None:
    mixed = mix([A, B])
    assert sorted(mixed["origin"]) == sorted([*A["origin"], *B["origin"]])
    assert mixed["origin"] != [*A["origin"], *B["origin"]]


def test_ratios_are_relative_numbers_of_examples() -> None:
    assert shares(mix([A, B], ratios=[1, 1])) == {"a": 10, "b": 10}
    assert shares(mix([A, B], ratios=[1, 3])) == {"a": 10, "b": 30}
    assert shares(mix([A, B], ratios=[0.5, 4])) == {"a": 5, "b": 40}
    assert shares(mix([A, B], ratios=[0, 1])) == {"b": 40}
    assert shares(mix([A, B], ratios=[0.1, 0.3])) == {"a": 10, "b": 30}


def test_max_examples() -> None:
    assert shares(mix([A, B], ratios=[1, 3], max_examples=20)) == {"a": 5, "b": 15}
    assert len(mix([A, B], max_examples=7)) == 7
    assert len(mix([A, B], max_examples=1000)) == 50


def test_the_seed_decides() -> None:
    first = mix([A, B], ratios=[1, 2], seed=1)["origin"]
    assert first == mix([A, B], ratios=[1, 2], seed=1)["origin"]
    assert first != mix([A, B], ratios=[1, 2], seed=2)["origin"]


@given(
    st.lists(st.tuples(st.integers(1, 12), st.integers(1, 9)), min_size=1, max_size=4),
    st.integers(0, 5),
)
def test_ratios_hold_and_nothing_is_repeated(sources: list[tuple[int, int]], seed: int) -> None:
    datasets = [source(str(index), size) for index, (size, _) in enumerate(sources)]
    scale = min(size / ratio for size, ratio in sources)
    if any(int(ratio * scale + 1e-6) == 0 for _, ratio in sources):
        with pytest.raises(InputError, match="leaves no example of source"):
            mix(datasets, ratios=[ratio for _, ratio in sources], seed=seed)
        return
    mixed = mix(datasets, ratios=[ratio for _, ratio in sources], seed=seed)
    assert len(set(mixed["origin"])) == len(mixed)
    counts = shares(mixed)
    assert any(counts[str(index)] == size for index, (size, _) in enumerate(sources))
    for index, (_, ratio) in enumerate(sources):
        assert abs(counts[str(index)] - ratio * scale) < 1


def test_plain_and_conversational_sources_align() -> None:
    mixed = mix([source("a", 2, prefix=True), source("b", 2, conversational=True)])
    assert all(isinstance(prompt, list) for prompt in mixed["prompt"])
    assert {as_example(row).harmful_prefix for row in mixed} == {"h", None}
    assert {as_example(row).chosen for row in mixed} == {"a 0.", "a 1.", "b 0.", "b 1."}


def test_sources_need_not_come_from_load_triples() -> None:
    own = Dataset.from_list([{"prompt": "p", "chosen": "r", "score": 3}])
    mixed = mix([own, own.remove_columns("score")])
    assert mixed.column_names == ["prompt", "chosen", "rejected", "harmful_prefix", "origin"]
    assert sorted(mixed["origin"]) == ["source 1 row 0", "source 2 row 0"]
    with pytest.raises(InputError, match="source 1 row 0: chosen is missing"):
        mix([Dataset.from_list([{"prompt": "p", "text": "r"}])])


@pytest.mark.parametrize(
    ("ratios", "max_examples", "message"),
    [
        ([1], None, "ratios: 1 given for 2 sources"),
        ([1, -1], None, "ratios: -1 isn't a number of examples"),
        ([1, float("nan")], None, "ratios: nan isn't a number"),
        ([1, float("inf")], None, "ratios: inf isn't a number"),
        ([0, 0], None, "ratios: all are 0"),
        ([1, 1000], None, "ratios: 1 leaves no example of source 1 .of 10."),
        (None, 0, "max_examples: must be at least 1, not 0"),
        ([1, 1], 1, "leaves no example"),
    ],
)
def test_what_can_not_be_mixed(ratios: list[float] | None, max_examples: int | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        mix([A, B], ratios=ratios, max_examples=max_examples)


def test_nothing_to_mix() -> None:
    with pytest.raises(InputError, match="nothing to mix"):
        mix([])
