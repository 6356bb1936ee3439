"""Columns hold examples: what goes in comes out."""

import pytest
from datasets import Dataset
from hypothesis import given, reject
from hypothesis import strategies as st

from derta.data.arrow import as_dataset, canonical, examples_of
from derta.data.mixing import mix
from derta.data.triples import Example, as_example
from derta.errors import InputError
from tests.data.test_triples import examples


def read_back(dataset: Dataset) -> list[Example]:
    return list(examples_of(dataset.to_dict()))


@given(st.lists(examples(), min_size=1, max_size=6), st.integers(1, 3))
def test_examples_come_back_as_they_were(drawn: list[Example], chunk: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("derta.data.arrow._CHUNK", chunk)
        dataset = as_dataset(drawn)
    assert read_back(dataset) == [as_example(row) for row in dataset] == drawn
    try:
        mixed = mix([dataset], seed=1)
    except InputError:
        reject()  # a text that is rejected in one row would be learnt in another
    assert sorted(read_back(mixed), key=repr) == sorted(drawn, key=repr)


def test_rows_in_another_form_are_checked_and_those_of_derta_are_not() -> None:
    example = Example([{"role": "user", "content": "p"}], "r", None, None, "here:1")
    dataset = as_dataset([example] * 2)
    assert canonical(dataset, "mine") is dataset
    own = Dataset.from_list([{"prompt": "p", "chosen": "r"}, {"prompt": "p", "chosen": " "}])
    with pytest.raises(InputError, match="mine row 1: chosen is empty"):
        canonical(own, "mine")
