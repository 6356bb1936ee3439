"""The estimates of `--dry-run` against what small models keep, and the paper's largest run on paper."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedConfig, PreTrainedTokenizerFast
from trl import ModelConfig

from derta.cli import main
from derta.errors import InputError
from derta.method.objective import install_objective
from derta.method.tree import Term, TokenTree, collate
from derta.training import dry_run
from derta.training.config import DeRTaConfig
from derta.training.dry_run import Memory, empty_model, estimate_memory

ROWS, WIDTH, VOCABULARY = 4, 256, 400
RECIPES = Path(__file__).parents[2] / "recipes"


def shape(layers: int = 4) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=320,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
    )


def network(
    layers: int = 4, dtype: str = "float32", lora: LoraConfig | None = None, dense: bool = True
) -> torch.nn.Module:
    model = LlamaForCausalLM(shape(layers)).to(getattr(torch, dtype))
    install_objective(model, [3])
    if dense:
        model.set_attn_implementation("sdpa")  # as on a GPU
    return get_peft_model(model, lora) if lora else model


def kept(model: torch.nn.Module, bf16: bool = False) -> int:
    """Bytes that autograd keeps of one batch, without the model's own and copies of them, and without logits."""
    shapes = {p.shape for p in model.parameters()} | {p.T.shape for p in model.parameters() if p.dim() == 2}
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    storages: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage().data_ptr()
        if storage not in own and tensor.shape not in shapes and tensor.shape[-1] != VOCABULARY:
            storages[storage] = tensor
        return tensor

    rows = [TokenTree.response([4] * 100, [5] * (WIDTH - 99), Term.HELPFUL)] * ROWS
    ids = torch.arange(ROWS * WIDTH).view(ROWS, WIDTH) % VOCABULARY
    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=bf16),
    ):
        outputs = model.train()(
            input_ids=ids,
            position_ids=torch.arange(WIDTH).expand(ROWS, -1).contiguous(),
            visible_ranges=collate(rows, WIDTH)["visible_ranges"],
            targets=ids,
            terms=torch.ones_like(ids),
        )
    assert outputs["nll"].requires_grad
    return sum(tensor.untyped_storage().nbytes() for tensor in storages.values())


def estimate(model: torch.nn.Module, path: Path, layers: int = 4, **options: Any) -> Memory:
    config = DeRTaConfig(str(path), use_cpu=True, **options)
    return estimate_memory(model, shape(layers), config, (ROWS, WIDTH), ModelConfig())


LORA = {"r": 8, "target_modules": "all-linear"}


@pytest.mark.parametrize(("dtype", "bf16"), [("float32", False), ("float32", True), ("bfloat16", True)])
def test_activations_are_about_what_autograd_keeps(tmp_path: Path, dtype: str, bf16: bool) -> None:
    model = network(dtype=dtype)
    logits = 3 * 4 * ROWS * WIDTH * VOCABULARY
    assert estimate(model, tmp_path, bf16=bf16).activations - logits == pytest.approx(kept(model, bf16), rel=0.25)


def test_checkpointing_keeps_the_input_of_each_layer(tmp_path: Path) -> None:
    measured, estimated = [], []
    for layers in (4, 12):
        model = network(layers)
        estimated.append(estimate(model, tmp_path, layers, activation_checkpointing=True).activations)
        model.activation_checkpointing_enable()
        measured.append(kept(model))
    assert estimated[1] - estimated[0] == pytest.approx(measured[1] - measured[0], rel=0.05)


@pytest.mark.parametrize("lora", [None, LoraConfig(**LORA)], ids=["full", "lora"])
def test_weights_gradients_and_optimizer_are_what_a_step_leaves(tmp_path: Path, lora: LoraConfig | None) -> None:
    model = network(lora=lora)
    memory = estimate(model, tmp_path, optim="adamw_torch")
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable)
    sum(p.sum() for p in trainable).backward()
    optimizer.step()
    state = [v for of in optimizer.state.values() for v in of.values() if v.dim() > 0]
    assert memory.weights == sum(p.numel() * p.element_size() for p in model.parameters())
    assert memory.gradients == sum(p.grad.nbytes for p in trainable)
    assert memory.optimizer == sum(v.nbytes for v in state)


def test_smaller_optimizers_and_shards(tmp_path: Path) -> None:
    model = network()
    count = sum(p.numel() for p in model.parameters())
    sizes = {name: estimate(model, tmp_path, optim=name).optimizer for name in ("adamw_torch", "adamw_bnb_8bit", "sgd")}
    assert sizes == {"adamw_torch": 8 * count, "adamw_bnb_8bit": 2 * count, "sgd": 0}
    memory = estimate(model, tmp_path)
    assert memory.shared_by(8) == 2 * count + memory.activations


def test_tied_embeddings_count_once_and_an_adapter_takes_less_than_all_weights(tmp_path: Path) -> None:
    config = shape()
    config.tie_word_embeddings = True
    config.save_pretrained(tmp_path)
    model, trainable, _ = empty_model(str(tmp_path), ModelConfig())
    assert trainable == LlamaForCausalLM(config).num_parameters()
    adapter = ModelConfig(use_peft=True, lora_target_modules=["all-linear"], lora_dropout=0.05)
    whole, lora = (estimate(each, tmp_path) for each in (model, empty_model(str(tmp_path), adapter)[0]))
    assert lora.total < whole.total


def test_lora_of_70_billion_parameters_fits_8_devices_of_80_gb_on_paper(
    tmp_path: Path,
    tokenizer: PreTrainedTokenizerFast,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    LlamaConfig(
        vocab_size=128_256,
        hidden_size=8192,
        intermediate_size=28_672,
        num_hidden_layers=80,
        num_attention_heads=64,
        num_key_value_heads=8,
    ).save_pretrained("70b")
    tokenizer.save_pretrained("70b")
    long = {"prompt": "how to walk?", "chosen": "walk in. turn. " * 60}
    triple = {"prompt": "open the vault?", "chosen": "I'm sorry, I won't.", "rejected": "Take a key. " * 60}
    Path("data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [long, triple] * 40))
    command = ["train", "--config", str(RECIPES / "llama3-70b-lora.yaml"), "--dry-run", "--output_dir", "out"]
    own = ["--model_name_or_path", "70b", "--train_data", "data.jsonl", "--ratios", "1", "--use_cpu", "true"]
    assert main([*command, *own]) == 0
    shown = capsys.readouterr().out
    shared = re.search(r": does not fit; shared by 8 devices \(FSDP2, ZeRO-3\) about ([0-9.]+) GB each", shown)
    assert shared
    assert float(shared[1]) < 0.9 * 80
    assert re.search(r"weights +│ 148\.56 GB", shown)
    assert re.search(r"time on this machine: about [0-9,.]+ hours, give or take", shown)


def test_the_shape_of_a_model_is_built_without_the_code_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers would ask on standard input, where a configuration names code for an architecture of its own."""

    class OfOthers(PreTrainedConfig):
        model_type = "of-others"

    ran = tmp_path / "ran"
    (tmp_path / "modeling_others.py").write_text(f"open({str(ran)!r}, 'w').close()\nclass Model: pass\n")
    config: Any = OfOthers()
    config.auto_map = {"AutoModelForCausalLM": "modeling_others.Model"}
    config._name_or_path = str(tmp_path)
    monkeypatch.setattr(dry_run, "load_config", lambda *given: config)
    monkeypatch.setattr("builtins.input", lambda *prompt: "y")
    with pytest.raises(InputError):
        empty_model(str(tmp_path), ModelConfig())
    assert not ran.exists()
