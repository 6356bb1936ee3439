"""The commands of a cell, and when its numbers are its own."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from derta.evaluation.results.metrics import MetricRow
from derta.names import recipe_path
from experiments.study import cells as study_cells
from experiments.study.cells import (
    CELL,
    CellError,
    Failure,
    _Lifeline,
    commands_of,
    is_done,
    run_cell,
    run_study,
    settings_of,
)
from experiments.study.numbers import collect
from experiments.study.plan import Cell, Study, load_study

ROW = MetricRow("m", "d", "derta", 1, "direct", None, "asr", 5.0, 40, 1.0, 9.0, "organism", "%")


def study_of(tmp_path: Path, variants: str, recipe: Path | str = "organism") -> Study:
    head = f"title: t\nrecipe: {recipe}\nworlds: [3]\nseeds: [1]\nevaluate: {{attacks: direct}}\n"
    (tmp_path / "study.yaml").write_text(f"{head}variants: {{{variants}}}\n")
    return load_study(tmp_path / "study.yaml")


def test_a_baselines_constants_reach_its_command_as_one_word(tmp_path: Path) -> None:
    study = study_of(tmp_path, "soft: {baseline: door, constants: {alpha: 0.5}, train_data: [a, b]}")
    train, evaluate = commands_of(study, Cell(1, 3, "soft"))
    assert train[:3] == ["train", "--method=door", f"--config={recipe_path('organism').resolve()}"]
    assert f"--constants={json.dumps({'alpha': 0.5})}" in train
    assert train[train.index("--train-data") :] == ["--train-data", "a", "b"]
    assert {"--model-name-or-path=organism:3", "--output-dir=world-3/soft/seed-1/model"} <= set(train)
    assert {"--model=world-3/soft/seed-1/model", "--behaviours=organism"} <= set(evaluate)


def test_a_cell_without_training_attacks_what_another_trained(tmp_path: Path) -> None:
    study = study_of(tmp_path, "soft: {}, hot: {after: soft, train: false, evaluate: {temperature: 1.0}}")
    (evaluate,) = commands_of(study, Cell(1, 3, "hot"))
    assert {"--model=world-3/soft/seed-1/model", "--temperature=1.0"} <= set(evaluate)


def test_numbers_of_another_recipe_are_neither_done_nor_collected(tmp_path: Path) -> None:
    """A cell that failed after its recipe was changed would show the old figures; so would one that starts from it."""
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("max_steps: 300\n")
    study = study_of(tmp_path, "paper: {}, tampered: {after: paper, recipe: organism}", recipe)
    cells = list(study.cells())
    assert not any(is_done(study, cell, tmp_path) for cell in cells)
    for cell in cells:
        path = tmp_path / cell.directory / CELL
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"settings": settings_of(study, cell), "rows": [ROW.to_json()]}))
    assert all(is_done(study, cell, tmp_path) for cell in cells)
    assert [number.variant for number in collect(study, tmp_path)] == ["paper", "tampered"]
    recipe.write_text("max_steps: 3\n")
    assert not any(is_done(study, cell, tmp_path) for cell in cells)
    assert collect(study, tmp_path) == []


def test_settings_are_what_is_trained_and_attacked_whatever_its_name(tmp_path: Path) -> None:
    """Numbers survive another name and another comment, and nothing else."""
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("max_steps: 300\nmethod: derta\n")

    def settings(variants: str, variant: str, seed: int = 1) -> str:
        return settings_of(study_of(tmp_path, variants, recipe), Cell(seed, 3, variant))

    paper = settings("paper: {}", "paper")
    assert settings("other: {method: derta, max-steps: 300}", "other") == paper
    assert settings("long: {max_steps: 600}", "long") != paper
    assert settings("door: {baseline: door}", "door") != paper
    assert settings("hot: {evaluate: {temperature: 1.0}}", "hot") != paper
    assert settings("paper: {}", "paper", seed=2) != paper
    tuned = settings("paper: {}, tuned: {after: paper}", "tuned")
    assert settings("other: {}, tuned: {after: other}", "tuned") == tuned
    assert settings("paper: {max_steps: 3}, tuned: {after: paper, max_steps: 300}", "tuned") != tuned
    recipe.write_text("# as before\nmethod: derta\nmax_steps: 300\n")
    assert settings("paper: {}", "paper") == paper


def test_a_recipe_that_changes_while_a_cell_is_at_work_is_not_what_it_was_trained_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("max_steps: 300\n")
    study = study_of(tmp_path, "paper: {}", recipe)
    (cell,) = study.cells()
    (tmp_path / cell.directory).mkdir(parents=True)
    monkeypatch.setattr(study_cells, "_derta", lambda *_, **__: recipe.write_text("max_steps: 3\n"))
    found = SimpleNamespace(find_missing=list, samples=[], rows=[ROW])
    monkeypatch.setattr(study_cells, "load_evaluation", lambda _: found)
    with _Lifeline() as lifeline:
        run_cell(study, cell, tmp_path, lifeline)
    assert not is_done(study, cell, tmp_path)
    recipe.write_text("max_steps: 300\n")
    assert is_done(study, cell, tmp_path)


def test_what_is_in_the_way_of_a_changed_recipe_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = study_of(tmp_path, "paper: {}")
    (cell,) = study.cells()

    def fail(*_: object, **__: object) -> None:
        raise CellError("derta train ended with 2: it holds another run")

    monkeypatch.setattr(study_cells, "_derta", fail)
    with _Lifeline() as lifeline:
        with pytest.raises(CellError, match=r"another run$"):
            run_cell(study, cell, tmp_path, lifeline)
        path = tmp_path / cell.directory / CELL
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"settings": "something else", "rows": []}))
        with pytest.raises(CellError, match=r"another run \(.*world-3/paper/seed-1 is of other settings .*; delete it"):
            run_cell(study, cell, tmp_path, lifeline)


def test_a_cell_that_fails_is_told_at_once_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_of(tmp_path, "soft: {}, after: {after: soft, recipe: organism}, hard: {}")
    told: list[Failure] = []
    told_before: list[str] = []

    def run(study: Study, cell: Cell, *others: object) -> None:
        if cell.variant == "soft":
            raise CellError("derta eval ended with 2: it said why")
        told_before.extend(f"{failure.cell.directory}: {failure.line}" for failure in told)

    monkeypatch.setattr(study_cells, "run_cell", run)
    assert run_study(study, tmp_path, jobs=1, on_failure=told.append) == 2
    assert told_before == ["world-3/soft/seed-1: derta eval ended with 2: it said why"]
    assert [failure.cell.variant for failure in told] == ["soft", "after"]
