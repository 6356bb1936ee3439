"""Loading: directories, adapters, and one-line errors for what isn't a model."""

import json
import shutil

import pytest
import torch
from peft import LoraConfig, get_peft_model

from derta.errors import InputError
from derta.inference import load_model
from tests.inference.tiny import make_model, make_tokenizer


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    directory = tmp_path_factory.mktemp("base")
    tokenizer = make_tokenizer()
    make_model(len(tokenizer)).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def logits(model):
    return model(input_ids=torch.tensor([[1, 40, 50]])).logits


def test_a_directory_gives_back_its_model_and_tokenizer(base):
    model, tokenizer = load_model(str(base))
    assert torch.equal(logits(model), logits(make_model(len(tokenizer))))
    assert tokenizer.chat_template == make_tokenizer().chat_template
    assert not model.training


def test_an_adapter_is_applied_to_its_base(base, tmp_path):
    model, _ = load_model(str(base))
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    adapted.save_pretrained(tmp_path)
    written = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps({**written, "base_model_name_or_path": str(base)}))
    expected = logits(adapted)
    loaded, tokenizer = load_model(str(tmp_path))
    torch.testing.assert_close(logits(loaded), expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(logits(loaded), logits(load_model(str(base))[0]), atol=1e-2)
    assert tokenizer.chat_template


def one_line_error(name):
    with pytest.raises(InputError) as caught:
        load_model(str(name))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_not_a_model_is_a_one_line_input_error(base, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "empty").mkdir(parents=True)
    (tmp_path / "runs" / "file.json").write_text("{}")
    assert "no such model directory" in one_line_error("runs/derta")
    assert "no such model directory" in one_line_error("./nowhere")
    assert "no such model directory" in one_line_error("typo")
    assert "no config.json" in one_line_error("runs/empty")
    assert "is a file" in one_line_error("runs/file.json")


def test_a_damaged_checkpoint_is_a_one_line_input_error(base, tmp_path):
    for name, content in [("config.json", "{"), ("model.safetensors", "xx"), ("config.json", '{"model_type": "nope"}')]:
        broken = tmp_path / f"{name}-{len(content)}"
        shutil.copytree(base, broken)
        (broken / name).write_text(content)
        assert "can't be loaded" in one_line_error(broken)


def test_missing_weights_are_not_replaced_by_random_ones(base, tmp_path):
    from safetensors.torch import load_file, save_file

    shutil.copytree(base, tmp_path / "m")
    weights = load_file(tmp_path / "m" / "model.safetensors")
    weights.pop("model.layers.1.self_attn.q_proj.weight")
    save_file(weights, tmp_path / "m" / "model.safetensors", metadata={"format": "pt"})
    assert "missing" in one_line_error(tmp_path / "m")
