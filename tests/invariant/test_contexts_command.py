"""`contexts` as a user meets it: on the command line, in a dry run, in `data show`, and after a kill."""

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml

from derta.cli import main
from tests.invariant.test_train_command import _here, assert_same, history, refused, train  # noqa: F401 (a fixture)

MAPPING = json.dumps({"plain": 1, "neighbour": 1, "role-play": 1, "noise": 1, "raw": 1})


@pytest.mark.parametrize("contexts", ["recommended", MAPPING])
def test_a_run_in_contexts_goes_on_to_the_same_weights_however_it_is_split(contexts: str) -> None:
    options = ["--contexts", contexts, "--max_length", "900"]
    assert train("whole", *options) == 0
    assert train("split", *options, "--per_device_train_batch_size", "2", "--gradient_accumulation_steps", "4") == 0
    asked = yaml.safe_load(Path("whole/config.yaml").read_text())["contexts"]
    assert asked == ("recommended" if contexts == "recommended" else json.loads(MAPPING))
    shutil.copytree("whole", "cut")
    for step in (4, 6):
        shutil.rmtree(f"cut/checkpoint-{step}", ignore_errors=True)
    identity = json.loads(Path("whole/derta.json").read_text())
    Path("cut/derta.json").write_text(json.dumps({**identity, "finished": False}))
    assert train("cut", *options) == 0
    assert_same("whole", "cut")
    assert [log["loss"] for log in history("whole")] == pytest.approx(
        [log["loss"] for log in history("split")], rel=1e-4
    )


def test_another_file_of_role_plays_is_another_run(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--contexts", MAPPING, "--context-role-plays", "plays.jsonl", "--max_steps", "2"]
    Path("plays.jsonl").write_text('{"template": "walk in: {prompt}"}\n')
    assert train("out", *options) == 0
    Path("plays.jsonl").write_text('{"template": "turn: {prompt}"}\n')
    assert "context_role_plays" in refused(capsys, "train", "--config", "recipe.yaml", "--output_dir", "out", *options)


def test_a_dry_run_counts_by_context(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--config", "organism-contexts", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    rows = dict(re.findall(r"│ ([a-z+-]+) +│ +([\d,]+ │ +[\d,]+ │ +[\d,]+) │", shown))
    safety, helpful, left = (
        sum(int(row.split("│")[i]) for name, row in rows.items() if name != "all") for i in range(3)
    )
    assert (safety, helpful, left) == (192, 640, 0)
    assert len(rows) == 11


def test_show_names_the_context_of_each_example(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--contexts", '{"small-talk": 1, "refused": 1}', "--examples", "6"]
    assert main(["data", "show", "--model", "organism", "organism", *options]) == 0
    titles = re.findall(r"organism:\d+: ([a-z-]+)", capsys.readouterr().out)
    assert len(titles) == 6
    assert set(titles) == {"small-talk", "refused"}


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("recomended", "no set 'recomended' (did you mean 'recommended'?)"),
        ('{"neighbor": 1}', "no context 'neighbor' (did you mean 'neighbour'?)"),
        ('{"plain": "often"}', "plain: 'often' is not a finite number of 0 or more"),
    ],
)
def test_a_wrong_context_is_one_line(option: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert message in refused(capsys, "train", "--config", "recipe.yaml", "--output_dir", "out", "--contexts", option)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("organism?tripels=2", "organism has no 'tripels' (did you mean 'triples'?)"),
        ("organism?triples=5&triples=7", "organism?triples=5&triples=7: triples is given twice"),
        ("organism?triples=many", "organism?triples=many: 'many' is not a number"),
        ("organism?borderline_share=2", "organism?borderline_share=2: give a number from 0 to 1"),
    ],
)
def test_a_wrong_size_of_the_organisms_data_is_one_line(
    source: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", "--config", "organism", "--output_dir", "out", "--train_data", source]
    assert message in refused(capsys, *command)
