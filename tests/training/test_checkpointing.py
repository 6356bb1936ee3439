"""Activation checkpointing, of some layers or offloaded, trains the same model: the same losses and gradients."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from torch.autograd.graph import save_on_cpu
from transformers import PreTrainedTokenizerFast, TrainerCallback

from derta import DeRTaConfig, DeRTaTrainer
from derta.errors import InputError
from tests.method.models import tiny
from tests.method.test_exactness import rows


class Gradients(TrainerCallback):
    """Keeps the gradient of each optimizer step."""

    def __init__(self) -> None:
        self.of_step: list[torch.Tensor] = []

    def on_pre_optimizer_step(self, *_: Any, model: Any = None, **__: Any) -> None:
        """Copy it."""
        self.of_step.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))


def train(
    tokenizer: PreTrainedTokenizerFast,
    folder: Path,
    architecture: str,
    lora: bool,
    options: dict[str, Any] | None = None,
    offload: bool = False,
) -> tuple[list[float], list[torch.Tensor], list[int]]:
    """Losses and gradients of two steps, and how often each layer ran; `offload` past the trainer's own check."""
    args = DeRTaConfig(
        str(folder), max_steps=2, logging_steps=1, save_strategy="no", use_cpu=True, report_to="none",
        disable_tqdm=True, per_device_train_batch_size=4, cuts_per_triple=2,
        activation_checkpointing=options is not None, activation_checkpointing_kwargs=options,
    )  # fmt: skip
    # With B at zero an adapter changes nothing and A gets no gradient.
    adapter = LoraConfig(task_type="CAUSAL_LM", r=4, init_lora_weights=False, target_modules=["q_proj", "down_proj"])
    gradients = Gradients()
    trainer = DeRTaTrainer(
        tiny(architecture),
        args,
        Dataset.from_list(rows()),
        processing_class=tokenizer,
        peft_config=adapter if lora else None,
        callbacks=[gradients],
    )
    model = trainer.model.get_base_model() if lora else trainer.model
    runs = [0] * len(model.model.layers)

    def count(layer: int, *_: Any) -> None:
        runs[layer] += 1

    for index, layer in enumerate(model.model.layers):
        layer.self_attn.register_forward_pre_hook(partial(count, index))
    if offload:
        model.activation_checkpointing_enable(offload=True)
    trainer.train()
    return [log["loss"] for log in trainer.state.log_history if "loss" in log], gradients.of_step, runs


@pytest.mark.parametrize(
    ("options", "runs"), [({}, [4, 4, 4]), ({"every_n_layers": 2}, [4, 2, 4])], ids=["all", "every second"]
)
@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("architecture", ["llama", "mistral-window"])
def test_changes_nothing(
    architecture: str, lora: bool, options: dict[str, Any], runs: list[int], tokenizer: Any, tmp_path: Path
) -> None:
    losses, gradients, once = train(tokenizer, tmp_path, architecture, lora)
    same_losses, same_gradients, often = train(tokenizer, tmp_path, architecture, lora, options)
    assert (once, often) == ([2, 2, 2], runs), "layers are not computed again"
    assert same_losses == pytest.approx(losses, rel=1e-6)
    for same, gradient in zip(same_gradients, gradients, strict=True):
        assert (same - gradient).norm() <= 1e-6 * gradient.norm()
        assert gradient.norm() > 0


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_offload_changes_nothing(
    lora: bool, tokenizer: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses, gradients, _ = train(tokenizer, tmp_path, "llama", lora)
    copied: list[torch.Tensor] = []

    class Unpinned(save_on_cpu):
        """Copies as on a GPU, but into memory that a CPU can give."""

        def __init__(self, **_: Any) -> None:
            super().__init__(pin_memory=False)
            pack = self.pack_hook

            def copy(tensor: torch.Tensor) -> Any:
                copied.append(tensor)
                return pack(tensor)

            self.pack_hook = copy

    monkeypatch.setattr("transformers.modeling_utils.save_on_cpu", Unpinned)
    same_losses, same_gradients, runs = train(tokenizer, tmp_path, "llama", lora, offload=True)
    assert runs == [4, 4, 4]
    assert copied
    assert same_losses == pytest.approx(losses, rel=1e-6)
    for same, gradient in zip(same_gradients, gradients, strict=True):
        assert (same - gradient).norm() <= 1e-6 * gradient.norm()


def test_offload_without_a_gpu_is_refused(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="offload needs a GPU"):
        train(tokenizer, tmp_path, "llama", False, {"offload": True})


@pytest.mark.parametrize("every", [0, -1, "two"])
def test_every_nth_layer_means_one_or_more(every: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="every_n_layers"):
        DeRTaConfig(str(tmp_path), activation_checkpointing_kwargs={"every_n_layers": every})
