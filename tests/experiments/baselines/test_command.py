"""`derta train --method` with methods to compare with, as a user calls it."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from derta.cli import main
from derta.generation import load_tokenizer
from experiments.baselines import BASELINES
from experiments.baselines.refusal_token import REFUSE

SHORT = ("--config", "organism", "--seed", "1", "--max-steps", "4", "--max-examples", "80", "--batch", "8")
CONSTANTS = {
    "r2d2": {"cases": 2, "gcg_steps": 1, "width": 8, "pool": 4},
    "refusal-token": {"threshold": 0.25},
}


def train(name: str, output: str, *options: str) -> int:
    short = ["--per-device-train-batch-size" if word == "--batch" else word for word in SHORT]
    constants = ["--constants", json.dumps(CONSTANTS[name])] if name in CONSTANTS else []
    return main(["train", "--method", name, *short, "--output-dir", output, *constants, *options])


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """Run a command that must be refused; return its one line."""
    capsys.readouterr()
    assert main(["train", *argv]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", list(BASELINES))
def test_a_baseline_writes_the_run_that_derta_train_writes(name: str) -> None:
    assert train(name, "out") == 0
    identity = json.loads(Path("out/derta.json").read_text())
    assert identity["method"] == name
    assert identity["base"] == "organism"
    assert identity["finished"]
    assert f"method: {name}" in Path("out/config.yaml").read_text()
    assert f"method `{name}`" in Path("out/README.md").read_text()
    assert not Path("out/adapter_config.json").exists()
    before = load_file(Path(load_tokenizer("organism").name_or_path) / "model.safetensors")
    after = load_file("out/model.safetensors")
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[key], after[key]) for key in before)


def test_eval_reads_the_run_of_a_baseline_and_its_template(capsys: pytest.CaptureFixture[str]) -> None:
    assert train("goal-priority", "out") == 0
    assert "look after the people" in Path("out/chat_template.jinja").read_text()
    asked = ("--behaviours", "organism", "--attacks", "direct", "--limit", "2", "--max-new-tokens", "4")
    assert main(["eval", "--model", "out", *asked, "--out", "evaluation"]) in (0, 1)
    rows = json.loads(Path("evaluation/results.json").read_text())["rows"]
    assert {row["method"] for row in rows} == {"goal-priority"}


def test_the_threshold_of_the_refusal_token_is_where_generation_reads_it() -> None:
    assert train("refusal-token", "out") == 0
    model = AutoModelForCausalLM.from_pretrained("out")
    token = load_tokenizer("out").convert_tokens_to_ids(REFUSE)
    ((tokens, bias),) = model.generation_config.sequence_bias
    assert list(tokens) == [token]
    assert bias == pytest.approx(torch.tensor(3.0).log().item())


def test_two_stages_share_the_steps_and_a_finished_one_is_not_trained_again(capsys: pytest.CaptureFixture[str]) -> None:
    assert train("circuit-breakers", "out", "--constants", '{"first_share": 0.25}') == 0
    assert json.loads(Path("out/trainer_state.json").read_text())["global_step"] == 3
    stage = Path("out/first-stage")
    assert json.loads((stage / "trainer_state.json").read_text())["global_step"] == 1
    written = (stage / "model.safetensors").stat().st_mtime_ns
    first, vanilla = load_file("out/model.safetensors"), load_file(stage / "model.safetensors")
    moved = max(((first[key] - vanilla[key]).norm() / vanilla[key].norm()).item() for key in first)
    assert moved > 0.05, "an adapter that changes nothing has no gradient that leads away from it"
    identity = json.loads(Path("out/derta.json").read_text())
    Path("out/derta.json").write_text(json.dumps({**identity, "finished": False}))
    for checkpoint in Path("out").glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
    assert train("circuit-breakers", "out", "--constants", '{"first_share": 0.25}') == 0
    assert (stage / "model.safetensors").stat().st_mtime_ns == written
    again = load_file("out/model.safetensors")
    assert all(torch.equal(first[key], again[key]) for key in first)


def test_an_interrupted_run_goes_on_to_the_same_weights() -> None:
    assert train("door", "whole", "--save-steps", "2", "--save-total-limit", "9") == 0
    shutil.copytree("whole", "half")
    shutil.rmtree("half/checkpoint-4")
    identity = json.loads(Path("half/derta.json").read_text())
    Path("half/derta.json").write_text(json.dumps({**identity, "finished": False}))
    assert train("door", "half", "--save-steps", "2", "--save-total-limit", "9") == 0
    whole, half = load_file("whole/model.safetensors"), load_file("half/model.safetensors")
    assert all(torch.equal(whole[key], half[key]) for key in whole)


def test_a_dry_run_shows_the_plan_and_writes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert train("w-door", "out", "--dry-run") == 0
    told = capsys.readouterr().out
    assert all(each in told for each in ("arXiv 2503.03710", "constant tau", "4 optimizer steps", "method w-door"))
    assert not Path("out").exists()


def test_what_a_baseline_cannot_do_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    rest = ("--config", "organism", "--output-dir", "out")
    assert "did you mean 'door'?" in refused(capsys, "--method", "dor", *rest)
    assert "--constants bta: door has none of this name" in refused(
        capsys, "--method", "door", *rest, "--constants", '{"bta": 1}'
    )
    assert "first_share: 1.5 is not between 0 and 1" in refused(
        capsys, "--method", "dpo", *rest, "--constants", '{"first_share": 1.5}'
    )
    assert "use_peft" in refused(capsys, "--method", "dpo", *rest, "--use-peft", "true")
    assert "contexts" in refused(capsys, "--method", "door", *rest, "--contexts", "recommended")
    assert "eval_data" in refused(capsys, "--method", "door", *rest, "--eval-data", "organism")
    assert "rto-dropuot" in refused(capsys, "--method", "door", *rest, "--rto-dropuot", "1")
    Path("helpful.jsonl").write_text('{"prompt": "How do I open the door ?", "chosen": "Take a key ."}\n')
    assert "door needs triples" in refused(capsys, "--method", "door", *rest, "--train-data", "helpful.jsonl")
    assert not Path("out").exists()
