"""Columns hold examples: what goes in comes out, in whichever form they are kept."""

import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from derta.data.columns import as_conversations, as_dataset, examples_of, is_canonical
from derta.data.mixing import mix
from derta.data.triples import Example, as_example
from tests.data.test_triples import examples


def read_back(dataset: Dataset) -> list[Example]:
    return list(examples_of(dataset.to_dict()))


@given(st.lists(st.tuples(examples(), st.booleans()), min_size=1, max_size=6), st.integers(1, 3))
def test_examples_come_back_as_they_were(drawn: list[tuple[Example, bool]], chunk: int) -> None:
    drawn = [(example, conversational or len(example.prompt) > 1) for example, conversational in drawn]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("derta.data.columns._CHUNK", chunk)
        dataset = as_dataset(drawn)
    expected = [example for example, _ in drawn]
    assert read_back(dataset) == [as_example(row) for row in dataset] == expected
    assert read_back(as_conversations(dataset)) == expected
    shuffled = mix([dataset], seed=1)
    assert read_back(as_conversations(shuffled)) == read_back(shuffled)


def test_what_datasets_makes_of_canonical_columns_is_unknown_again() -> None:
    example = Example([{"role": "user", "content": "p"}], "r", None, None, "here:1")
    dataset = as_dataset([(example, False)] * 2)
    assert is_canonical(dataset)
    assert is_canonical(mix([dataset]))
    assert not is_canonical(dataset.map(lambda row: {"chosen": ""}))
    assert not is_canonical(Dataset.from_list(dataset.to_list()))
