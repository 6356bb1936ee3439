"""`derta recipes new`: what it writes is a recipe that `derta train` takes, and says why."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from derta.cli import main
from derta.organism import path, training_data
from derta.training.dry_run import Machine
from derta.training.proposal import propose
from tests.invariant.test_data_commands import one_error


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    rows = [{name: value for name, value in row.items() if value} for row in training_data().to_list()]
    Path("data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return "data.jsonl"


def recipe(name: str = "recipe.yaml") -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(Path(name).read_text())
    return found


def test_the_recipe_trains_and_says_why(data: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "new", "--model", "organism", "--data", data]) == 0
    written = recipe()
    assert written["use_cpu"] is True
    assert written["refusal_text"] == ["Sorry"]
    assert 43 * 2 < written["max_length"] <= 512
    assert "use_peft" not in written
    lines = Path("recipe.yaml").read_text().splitlines()
    assert "# 96 triples, 640 helpful examples; 6.7 helpful examples to a triple (the paper: 20)" in lines
    for name in written:
        if name != "save_total_limit":
            assert lines[next(n for n, line in enumerate(lines) if line.startswith(name)) - 1].startswith("# "), name
    capsys.readouterr()
    assert main(["train", "--config", "recipe.yaml", "--dry-run"]) == 0
    assert "96" in capsys.readouterr().out
    run = ["--max-steps", "2", "--save-steps", "2", "--output-dir", "run"]
    assert main(["train", "--config", "recipe.yaml", *run]) == 0
    assert re.search(r"\| data.jsonl \| 640 \| 96 \| [0-9a-f]{16} \|", Path("run/README.md").read_text())


def test_lora_where_it_is_asked_for_or_nothing_else_fits(data: str) -> None:
    assert main(["recipes", "new", "--model", "organism", "--data", data, "--lora", "--method", "vanilla"]) == 0
    assert recipe()["lora_target_modules"] == [
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    ]
    assert recipe()["method"] == "vanilla"
    assert main(["train", "--config", "recipe.yaml", "--dry-run"]) == 0
    some = {
        choice.name: choice for choice in propose("organism", [data], method="derta", lora=None, machine=_machine(1))
    }
    assert some["use_peft"].value is True
    assert "IT DOESN'T FIT" in some["per_device_train_batch_size"].why


def _machine(size: int) -> Machine:
    return Machine("a card", size, 1)


def test_a_recipe_for_a_gpu_passes_a_dry_run_without_one(data: str) -> None:
    from derta.training.proposal import render

    choices = propose("organism", [data], method="derta", lora=None, machine=_machine(80_000_000_000))
    Path("gpu.yaml").write_text(render(choices, []))
    assert recipe("gpu.yaml")["bf16"] is True
    assert main(["train", "--config", "gpu.yaml", "--dry-run"]) == 0


def test_a_model_without_a_template_gets_a_named_format(data: str) -> None:
    shutil.copytree(path(), "plain")
    Path("plain/chat_template.jinja").unlink()
    assert main(["recipes", "new", "--model", "plain", "--data", data]) == 0
    assert recipe()["prompt_format"] == "alpaca"


def test_nothing_is_overwritten(data: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("recipe.yaml").write_text("mine\n")
    assert main(["recipes", "new", "--model", "organism", "--data", data]) == 2
    assert "recipe.yaml: exists; name another file" in one_error(capsys)
    assert Path("recipe.yaml").read_text() == "mine\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "organism", "--data", "none.jsonl"], "none.jsonl: file not found"),
        (["--model", "./none", "--data", "data.jsonl"], "./none: no such model directory"),
        (["--model", "organism", "--data", "data.jsonl", "--method", "dreta"], "dreta"),
        (["--model", "organism", "--data", "swapped.jsonl"], "chosen and rejected look swapped"),
    ],
)
def test_what_is_wrong_is_one_line(data: str, capsys: Any, arguments: list[str], message: str) -> None:
    rows = [row for row in training_data().to_list() if row["rejected"]]
    swapped = [{"prompt": row["prompt"], "chosen": row["rejected"], "rejected": row["chosen"]} for row in rows]
    Path("swapped.jsonl").write_text("".join(json.dumps(row) + "\n" for row in swapped))
    assert main(["recipes", "new", *arguments]) == 2
    assert message in one_error(capsys)
    assert not Path("recipe.yaml").exists()
