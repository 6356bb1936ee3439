"""The commands of a cell."""

import json
from pathlib import Path

from derta.study.cells import _commands
from derta.study.plan import Cell, Variant


def test_a_baselines_constants_reach_its_command_as_one_word() -> None:
    variant = Variant("soft", "organism", {"constants": {"alpha": 0.5}, "train_data": ["a", "b"]}, baseline="door")
    train, evaluate = _commands(variant, Cell(1, 3, "soft"), None, Path("organism.yaml"))
    assert train[:3] == ["baseline", "door", "--config=organism.yaml"]
    assert f"--constants={json.dumps({'alpha': 0.5})}" in train
    assert train[train.index("--train-data") :] == ["--train-data", "a", "b"]
    assert {"--model-name-or-path=organism:3", "--output-dir=world-3/soft/seed-1/model"} <= set(train)
    assert {"--model=world-3/soft/seed-1/model", "--behaviours=organism"} <= set(evaluate)


def test_a_cell_without_training_attacks_what_another_trained() -> None:
    variant = Variant("hot", "organism", after="soft", trained=False, evaluate={"temperature": 1.0})
    (evaluate,) = _commands(variant, Cell(1, 3, "hot"), Cell(1, 3, "soft"), Path("organism.yaml"))
    assert {"--model=world-3/soft/seed-1/model", "--temperature=1.0"} <= set(evaluate)
