"""A loss, a gradient or weights that aren't finite stop `derta train` before anything of that step is saved."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

import derta.training.run as run
from derta.cli import main
from derta.generation import load_tokenizer
from derta.training import DeRTaTrainer

RECIPE = """
model_name_or_path: organism
train_data: [data.jsonl]
max_steps: 6
per_device_train_batch_size: 2
learning_rate: 0.001
logging_steps: 1
save_steps: 2
use_cpu: true
report_to: none
disable_tqdm: true
"""
Break = Callable[[DeRTaTrainer], Any]


class At(TrainerCallback):
    """Does something at the beginning, before the update or at the end of a step, counted from 1."""

    def __init__(self, when: str, step: int, do: Callable[[], Any]) -> None:
        def act(args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            # The count goes up between an update and the end of its step.
            if state.global_step == step - (when != "on_step_end"):
                do()

        setattr(self, when, act)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("recipe.yaml").write_text(RECIPE)
    # Each line has as many vaults as its number.
    rows = [
        {"prompt": "how to open" + " vault" * line, "chosen": "sorry no", "rejected": "take a key and turn it"}
        for line in range(1, 9)
    ]
    Path("data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def train(monkeypatch: pytest.MonkeyPatch, break_: Break, *options: str) -> int:
    made = run._trainer

    def make(*args: Any) -> DeRTaTrainer:
        trainer = made(*args)
        break_(trainer)
        return trainer

    with monkeypatch.context() as patch:
        patch.setattr(run, "_trainer", make)
        return main(["train", "--config", "recipe.yaml", "--output-dir", "out", *options])


def fill(trainer: DeRTaTrainer, value: float) -> None:
    parameter = next(each for each in trainer.model.parameters() if each.requires_grad)
    with torch.no_grad():
        parameter.fill_(value)


def nan_weights(trainer: DeRTaTrainer) -> None:
    trainer.add_callback(At("on_step_begin", 4, lambda: fill(trainer, math.nan)))


def nan_weights_after_the_update(trainer: DeRTaTrainer) -> None:
    trainer.add_callback(At("on_step_end", 4, lambda: fill(trainer, math.inf)))


def nan_gradient(trainer: DeRTaTrainer) -> None:
    parameter = next(each for each in trainer.model.parameters() if each.requires_grad)
    parameter.register_hook(lambda gradient: gradient * (math.nan if trainer.state.global_step == 3 else 1))


@pytest.mark.parametrize(
    ("break_", "what"),
    [
        (nan_weights, "the loss is nan"),
        (nan_gradient, "the norm of the gradient is nan"),
        (nan_weights_after_the_update, "weights aren't finite after it"),
    ],
)
@pytest.mark.parametrize("options", [(), ("--max-grad-norm", "0", "--use-peft", "true", "--lora-r", "2")])
def test_a_broken_step_stops_the_run_and_the_last_checkpoint_stands(
    break_: Break,
    what: str,
    options: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert train(monkeypatch, break_, *options) == 2
    (told,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("derta: error")]
    assert told.startswith(f"derta: error: step 4: {what}, on data.jsonl:")
    assert "nothing of this step is saved, and out/checkpoint-2 stands" in told
    assert {each.name for each in Path("out").glob("checkpoint-*")} == {"checkpoint-2"}
    assert not list(Path("out").glob("*.safetensors"))
    for file in Path("out").rglob("*.safetensors"):
        assert all(weight.isfinite().all() for weight in load_file(file).values())
    # Mended, the same command goes on.
    assert train(monkeypatch, lambda trainer: None, *options) == 0
    assert json.loads(Path("out/trainer_state.json").read_text())["global_step"] == 6


def test_it_names_the_examples_of_the_batch(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """Of the four batches of step 3, the first of the second epoch, it was the third one."""
    seen: list[list[int]] = []

    def break_(trainer: DeRTaTrainer) -> None:
        forward = trainer.compute_loss

        def compute(model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            seen.append(inputs["input_ids"].flatten().tolist())
            return forward(model, inputs, *args, **kwargs) * (math.inf if len(seen) == 11 else 1)

        trainer.compute_loss = compute  # type: ignore[method-assign]

    options = ("--per-device-train-batch-size", "1", "--gradient-accumulation-steps", "4", "--save-steps", "5")
    assert train(monkeypatch, break_, *options) == 2
    (told,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("derta: error")]
    line = load_tokenizer("organism").decode(seen[10]).count("vault")
    assert f"step 3: the loss is inf, on data.jsonl:{line}; " in told
    assert "there is no checkpoint before it" in told
