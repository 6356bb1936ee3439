"""Loading: directories, adapters, and one-line errors for what isn't a model or isn't a whole one."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM

from derta.errors import InputError
from derta.generation import load_model
from derta.generation.loading import fingerprint, load_weights
from tests.generation.tiny import make_model, make_tokenizer

Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("base")
    tokenizer = make_tokenizer()
    make_model(len(tokenizer)).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def logits(model: Any) -> torch.Tensor:
    output: torch.Tensor = model(input_ids=torch.tensor([[1, 40, 50]])).logits
    return output


def make_adapter(base: Path, directory: Path) -> torch.Tensor:
    """Save an adapter that changes the model, and return its logits."""
    adapted = get_peft_model(
        load_model(str(base))[0], LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    )
    adapted.save_pretrained(directory)
    config = directory / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "base_model_name_or_path": str(base)}))
    return logits(adapted)


def damage(file: Path, change: Callable[[Weights], Any]) -> None:
    weights = load_file(file)
    change(weights)
    save_file(weights, file, metadata={"format": "pt"})


def test_a_directory_gives_back_its_model_and_tokenizer(base: Path) -> None:
    model, tokenizer = load_model(str(base))
    assert torch.equal(logits(model), logits(make_model(len(tokenizer))))
    assert tokenizer.chat_template == make_tokenizer().chat_template
    assert not model.training


def test_an_adapter_is_applied_to_its_base(base: Path, tmp_path: Path) -> None:
    expected = make_adapter(base, tmp_path)
    loaded, tokenizer = load_model(str(tmp_path))
    torch.testing.assert_close(logits(loaded), expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(logits(loaded), logits(load_model(str(base))[0]), atol=1e-2)
    assert tokenizer.chat_template


def one_line_error(name: object) -> str:
    with pytest.raises(InputError) as caught:
        load_model(str(name))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_not_a_model_is_a_one_line_input_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "empty").mkdir(parents=True)
    (tmp_path / "runs" / "file.json").write_text("{}")
    assert "no such model directory" in one_line_error("runs/derta")
    assert "no such model directory" in one_line_error("./nowhere")
    assert "no such model directory" in one_line_error("typo")
    assert "no config.json" in one_line_error("runs/empty")
    assert "is a file" in one_line_error("runs/file.json")


def test_a_damaged_checkpoint_is_a_one_line_input_error(base: Path, tmp_path: Path) -> None:
    for name, content in [("config.json", "{"), ("model.safetensors", "xx"), ("config.json", '{"model_type": "nope"}')]:
        broken = tmp_path / f"{name}-{len(content)}"
        shutil.copytree(base, broken)
        (broken / name).write_text(content)
        assert "can't be loaded" in one_line_error(broken)


QUERY = "model.layers.1.self_attn.q_proj.weight"
DAMAGES: dict[str, tuple[Callable[[Weights], Any], str]] = {
    "a layer": (
        lambda w: [w.pop(name) for name in list(w) if ".layers.1." in name],
        "9 weights are missing, such as model.layers.1.input_layernorm.weight",
    ),
    "the head": (lambda w: w.pop("lm_head.weight"), "1 weights are missing, such as lm_head.weight"),
    "too many layers": (
        lambda w: w.update({name.replace(".1.", ".2."): value.clone() for name, value in w.items() if ".1." in name}),
        "9 weights are unexpected, such as model.layers.2.input_layernorm.weight",
    ),
    "another shape": (
        lambda w: w.update({QUERY: w[QUERY][:16].clone()}),
        f"1 weights are of another shape, such as {QUERY} [16, 32] for [32, 32]",
    ),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_a_checkpoint_that_does_not_fit_its_model_is_refused(what: str, base: Path, tmp_path: Path) -> None:
    change, reason = DAMAGES[what]
    shutil.copytree(base, tmp_path / "m")
    damage(tmp_path / "m" / "model.safetensors", change)
    assert one_line_error(tmp_path / "m").endswith(f"the checkpoint doesn't fit its model: {reason}")


def test_a_shard_that_is_not_there_is_named(base: Path, tmp_path: Path) -> None:
    load_weights(str(base)).save_pretrained(tmp_path, max_shard_size="40KB")
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(shards) > 1
    assert torch.equal(logits(load_weights(str(tmp_path))), logits(load_weights(str(base))))
    shards[1].unlink()
    assert shards[1].name in one_line_error(tmp_path)


def test_tied_weights_are_not_missing(tmp_path: Path) -> None:
    model = make_model(100)
    model.config.tie_word_embeddings = True
    tied = LlamaForCausalLM(model.config)
    tied.save_pretrained(tmp_path)
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")
    assert torch.equal(logits(load_weights(str(tmp_path))), logits(tied.eval()))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda w: w.pop(next(iter(w))), "1 weights are missing, such as base_model.model"),
        (lambda w: w.clear(), "4 weights are missing"),
        (
            lambda w: w.update({name.replace(".1.", ".7."): w[name].clone() for name in list(w) if ".1." in name}),
            "2 weights are unexpected, such as base_model.model.model.layers.7.self_attn.q_proj.lora_A.weight",
        ),
        (lambda w: w.update({name: w[name][:1].clone() for name in list(w)[:1]}), "of another shape"),
    ],
    ids=["one weight", "all weights", "too many layers", "another shape"],
)
def test_an_adapter_that_does_not_fit_is_refused(
    change: Callable[[Weights], Any], reason: str, base: Path, tmp_path: Path
) -> None:
    make_adapter(base, tmp_path)
    damage(tmp_path / "adapter_model.safetensors", change)
    assert reason in one_line_error(tmp_path)


def test_an_adapter_is_not_taken_for_a_model(base: Path, tmp_path: Path) -> None:
    make_adapter(base, tmp_path)
    with pytest.raises(InputError, match="is an adapter, not a whole model; merge it"):
        load_weights(str(tmp_path))
    config = tmp_path / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "base_model_name_or_path": None}))
    assert "base_model_name_or_path names no model" in one_line_error(tmp_path)


def test_code_beside_a_checkpoint_is_never_run(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asks on the terminal"))
    shutil.copytree(base, tmp_path / "m")
    (tmp_path / "m" / "own.py").write_text("raise SystemExit('ran')")
    config = json.loads((base / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}}
    (tmp_path / "m" / "config.json").write_text(json.dumps(config))
    assert "brings code of its own" in one_line_error(tmp_path / "m")
    with pytest.raises(InputError, match="trust_remote_code: code beside a checkpoint is never run"):
        load_weights(str(base), trust_remote_code=True)


def test_fingerprints_tell_checkpoints_apart() -> None:
    size = len(make_tokenizer())
    assert fingerprint(make_model(size)) == fingerprint(make_model(size))
    assert fingerprint(make_model(size)) != fingerprint(make_model(size, seed=1))
