"""A run saved on two processes goes on with one and with three, whole or sharded, as if it had never stopped."""

import json
from pathlib import Path

import pytest
import torch

from derta.cli import main
from tests.invariant.processes import LORA, STEP, Run, run_all, steps, weights

FSDP = ["--fsdp", "true", "--fsdp_config", json.dumps({"transformer_layer_cls_to_wrap": ["LlamaDecoderLayer"]})]
RUNS = [
    Run(1, "whole", STEP[1]),
    Run(2, "ddp", STEP[2]),
    Run(2, "fsdp", STEP[2] + FSDP),
    Run(1, "ddp-on-1", STEP[1], ("ddp", 3)),
    Run(3, "ddp-on-3", STEP[3], ("ddp", 3)),
    Run(1, "fsdp-on-1", STEP[1], ("fsdp", 3)),
    Run(3, "fsdp-on-3", STEP[3] + FSDP, ("fsdp", 3)),
    Run(1, "lora-whole", STEP[1] + LORA),
    Run(2, "lora-fsdp", STEP[2] + LORA + FSDP),
    Run(1, "lora-fsdp-on-1", STEP[1] + LORA, ("lora-fsdp", 3)),
]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all runs, done one after another."""
    folder = tmp_path_factory.mktemp("runs")
    run_all(RUNS, folder)
    return folder


@pytest.mark.parametrize("name", [run.output for run in RUNS if not run.output.endswith("whole")])
def test_any_number_of_processes_takes_the_same_steps(runs: Path, name: str) -> None:
    whole = runs / ("lora-whole" if name.startswith("lora") else "whole")
    expected, found = steps(whole), steps(runs / name)
    assert list(found) == list(expected) == [1, 2, 3, 4, 5, 6, 7]
    for step, values in expected.items():
        assert found[step] == pytest.approx(values, rel=1e-5)
    for key, tensor in weights(whole).items():
        assert torch.allclose(weights(runs / name)[key], tensor, atol=1e-5)


def test_sharded_runs_are_sharded(runs: Path) -> None:
    for name in ("fsdp", "fsdp-on-3"):
        checkpoint = runs / name / "checkpoint-6"
        shards = list((checkpoint / "pytorch_model_fsdp_0").glob("*.distcp"))
        identity = json.loads((checkpoint / "derta.json").read_text())
        assert len(shards) == identity["processes"] == (2 if name == "fsdp" else 3)
        assert identity["sharding"] == "fsdp"
        assert not (checkpoint / "model.safetensors").exists()


def test_sharding_that_would_not_happen_is_refused(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(runs)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert main(["train", "--config", "recipe.yaml", "--output_dir", "alone"]) == 2
    assert "fsdp: accelerate does not shard in this launch (1 process" in capsys.readouterr().err
