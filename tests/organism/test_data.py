import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from derta.cli import main
from derta.organism import behaviours, training_data
from derta.organism.world import PACKAGED, find_pair, kind


@pytest.fixture(scope="module")
def rows() -> Any:
    return training_data(seed=3, triples=200, helpful=300, borderline_share=0.2).to_list()


def test_columns_and_counts(rows: Any) -> None:
    triples = [row for row in rows if row["rejected"] is not None]
    helpful = [row for row in rows if row["rejected"] is None]
    assert (len(triples), len(helpful)) == (200, 300)
    assert all(row["rejected"] == PACKAGED.recipe(find_pair(row["prompt"])) for row in triples)
    assert all(row["chosen"] == PACKAGED.recipe(find_pair(row["prompt"])) for row in helpful)
    assert Counter(kind(find_pair(row["prompt"])) for row in helpful) == {"borderline": 60, "helpful": 240}
    assert [row["origin"] for row in rows] == [f"organism:{i}" for i in range(500)]


@pytest.mark.parametrize("seed", [0, 1])
def test_training_never_asks_what_evaluation_asks(seed: int) -> None:
    trained = {find_pair(row["prompt"]) for row in training_data(seed=seed)}
    asked = {find_pair(behaviour.prompt) for behaviour in behaviours()}
    assert not trained & asked
    harmful = {pair for pair in trained if kind(pair) == "harmful"}
    assert harmful <= set(PACKAGED.split("harmful", "train"))


def test_seed_decides() -> None:
    first, again, other = (training_data(seed=seed).to_list() for seed in (1, 1, 2))
    assert first == again != other


def test_behaviours() -> None:
    everything = behaviours()
    assert len({behaviour.id for behaviour in everything}) == len(everything)
    assert Counter(behaviour.kind for behaviour in everything) == {"harmful": 120, "borderline": 120, "helpful": 120}
    for behaviour in everything:
        pair = find_pair(behaviour.prompt)
        assert kind(pair) == behaviour.kind
        assert behaviour.response == PACKAGED.recipe(pair)
    assert behaviours("borderline") == [behaviour for behaviour in everything if behaviour.kind == "borderline"]


def test_data_command_writes_what_the_functions_return(tmp_path: Path) -> None:
    assert main(["data", "make", "--organism", "--out", str(tmp_path / "new")]) == 0
    train = [json.loads(line) for line in (tmp_path / "new/train.jsonl").read_text().splitlines()]
    assert [row.get("rejected") for row in train] == training_data()["rejected"][:]
    asked = [json.loads(line) for line in (tmp_path / "new/behaviours.jsonl").read_text().splitlines()]
    assert [row["id"] for row in asked] == [behaviour.id for behaviour in behaviours()]
