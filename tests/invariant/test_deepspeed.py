"""DeepSpeed ZeRO-2 and ZeRO-3 take the steps of one process, go on from their checkpoints and save a whole model.

DeepSpeed is no dependency: `pip install deepspeed` to run this. It compiles a small library the first time.
"""

from pathlib import Path

import pytest
import torch

from tests.invariant.processes import LORA, STEP, Run, run_all, steps, weights

pytest.importorskip("deepspeed", reason="DeepSpeed is not installed")


def zero(stage: int, **more: str) -> dict[str, str]:
    """What `accelerate launch` makes of recipes/accelerate/eight_gpus_zero3.yaml."""
    offload = {f"ACCELERATE_DEEPSPEED_OFFLOAD_{name}_DEVICE": "none" for name in ("OPTIMIZER", "PARAM")}
    return {
        "ACCELERATE_USE_DEEPSPEED": "true",
        "ACCELERATE_DEEPSPEED_ZERO_STAGE": str(stage),
        "ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL": "true",
        "ACCELERATE_DEEPSPEED_ZERO3_INIT": "false",
        "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "auto",
        **offload,
        **more,
    }


ACCUMULATED = ["--per_device_train_batch_size", "1", "--gradient_accumulation_steps", "3"]
PER_TERM = ["--loss_normalization", "per-term"]
RUNS = [
    Run(1, "whole", STEP[1]),
    Run(2, "zero2", ACCUMULATED, launch=zero(2)),
    Run(2, "zero3", ACCUMULATED, launch=zero(3)),
    Run(2, "zero3-on", STEP[2], ("zero3", 3), launch=zero(3, ACCELERATE_DEEPSPEED_ZERO3_INIT="true")),
    Run(1, "per-term-whole", STEP[1] + PER_TERM),
    Run(2, "per-term-zero3", STEP[2] + PER_TERM, launch=zero(3)),
    Run(1, "lora-whole", STEP[1] + LORA),
    Run(2, "lora-zero3", STEP[2] + LORA, launch=zero(3)),
]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all runs, done one after another."""
    folder = tmp_path_factory.mktemp("runs")
    run_all(RUNS, folder, DS_ACCELERATOR="cpu")
    return folder


@pytest.mark.parametrize("name", [run.output for run in RUNS if not run.output.endswith("whole")])
def test_takes_the_steps_of_one_process(runs: Path, name: str) -> None:
    prefix = next((prefix for prefix in ("lora-", "per-term-") if name.startswith(prefix)), "")
    whole = runs / f"{prefix}whole"
    expected, found = steps(whole), steps(runs / name)
    assert list(found) == list(expected) == [1, 2, 3, 4, 5, 6, 7]
    for step, values in expected.items():
        assert found[step] == pytest.approx(values, rel=1e-5)
    saved = weights(runs / name)
    for key, tensor in weights(whole).items():
        assert torch.allclose(saved[key], tensor, atol=5e-5)


def test_the_runs_are_sharded(runs: Path) -> None:
    for name in ("zero2", "zero3"):
        assert len(list((runs / name / "checkpoint-6" / "global_step6").glob("*_optim_states.pt"))) == 2
