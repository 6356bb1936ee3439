"""Training, merging and evaluation stop at a checkpoint that isn't whole, in one line that names what is wrong."""

import json
import shutil
from pathlib import Path

import pytest
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerFast

from derta.cli import main
from tests.method.models import tiny

COMMANDS = {
    "train": ["train", "--model_name_or_path", "model", "--train_data", "data.jsonl", "--use_cpu", "true"],
    "merge": ["merge", "--adapter", "adapter"],
    "eval": ["eval", "--model", "model", "--behaviours", "behaviours.jsonl", "--attacks", "direct"],
}
DAMAGES = {
    "missing layers": ("model.layers.2.", None, "weights are missing, such as model.layers.2."),
    "missing head": ("lm_head.", None, "1 weights are missing, such as lm_head.weight"),
    "extra layers": ("model.layers.2.", "model.layers.9.", "weights are unexpected, such as model.layers.9."),
}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with a tiny model, an adapter for it, data and behaviours."""
    monkeypatch.chdir(tmp_path)
    tiny().save_pretrained("model")
    tokenizer.save_pretrained("model")
    get_peft_model(tiny(), LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained("adapter")
    config = json.loads(Path("adapter/adapter_config.json").read_text())
    Path("adapter/adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "model"}))
    tokenizer.save_pretrained("adapter")
    Path("data.jsonl").write_text(json.dumps({"prompt": "p?", "chosen": "I won't.", "rejected": "Turn it."}) + "\n")
    Path("behaviours.jsonl").write_text(json.dumps({"prompt": "how to open the moon vault?"}) + "\n")


def refused(capsys: pytest.CaptureFixture[str], command: str) -> str:
    option = "--output_dir" if command == "train" else "--out"
    assert main([*COMMANDS[command], option, "out"]) == 2
    (error,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("derta: error: ")]
    assert not list(Path().glob("out/*.safetensors"))
    return error


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_checkpoint_that_is_not_whole_stops_the_command(
    command: str, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    begin, copy_to, reason = DAMAGES[damage]
    weights = load_file("model/model.safetensors")
    for name in [name for name in weights if name.startswith(begin)]:
        if copy_to is None:
            del weights[name]
        else:
            weights[name.replace(begin, copy_to)] = weights[name].clone()
    save_file(weights, "model/model.safetensors", metadata={"format": "pt"})
    assert reason in refused(capsys, command)


def test_an_adapter_that_is_not_whole_stops_merging(capsys: pytest.CaptureFixture[str]) -> None:
    weights = load_file("adapter/adapter_model.safetensors")
    weights.pop("base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight")
    save_file(weights, "adapter/adapter_model.safetensors")
    assert "1 weights are missing, such as base_model.model.model.layers.1" in refused(capsys, "merge")
    shutil.rmtree("model")
    assert "no such model directory" in refused(capsys, "merge")
