"""Released rows and rows in each schema of public data: check, show, and one training step on three architectures."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    MistralConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
    set_seed,
)

from derta.cli import main
from tests.data.test_schemas import CASES, RELEASE
from tests.method.models import SMALL

LAYERS = {**SMALL, "num_hidden_layers": 4}
ARCHITECTURES = {
    "llama": LlamaConfig(**LAYERS),
    "mistral": MistralConfig(**LAYERS, sliding_window=16),
    "qwen3": Qwen3Config(**LAYERS, head_dim=8),
}


def check_show_and_train(
    file: Path, tmp_path: Path, tokenizer: PreTrainedTokenizerFast, options: Sequence[str]
) -> None:
    assert main(["data", "check", str(file)]) == 0
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    named = options[options.index("--prompt_format") :][:2] if "--prompt_format" in options else []
    assert main(["data", "check", str(file), "--model", str(tmp_path / "tokenizer"), *named]) == 0
    for name, config in ARCHITECTURES.items():
        set_seed(0)
        model = tmp_path / name
        AutoModelForCausalLM.from_config(config).save_pretrained(model)
        tokenizer.save_pretrained(model)
        show = ["data", "show", str(file), "--model", str(model), "--examples", "9", "--max_length", "512"]
        assert main([*show, *options]) == 0
        output = tmp_path / f"{name}-tuned"
        command = [
            *("train", "--model_name_or_path", str(model), "--train_data", str(file), "--output_dir", str(output)),
            *("--max_steps", "1", "--learning_rate", "0.01", "--use_cpu", "--report_to", "none"),
            *("--save_strategy", "no", "--disable_tqdm", "true", "--max_length", "512", *options),
        ]
        assert main(command) == 0
        before, after = load_file(model / "model.safetensors"), load_file(output / "model.safetensors")
        assert not torch.equal(before["model.norm.weight"], after["model.norm.weight"]), "nothing was learnt"
        assert all(torch.isfinite(tensor).all() for tensor in after.values())


@pytest.mark.parametrize(("rows", "becomes"), [(case[2], case[3]) for case in CASES], ids=[case[0] for case in CASES])
def test_every_schema(
    rows: list[dict[str, Any]],
    becomes: list[tuple[Any, ...]],
    tmp_path: Path,
    tokenizer: PreTrainedTokenizerFast,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    has_triples = any(rejected is not None for _, _, rejected in becomes)
    check_show_and_train(file, tmp_path, tokenizer, ["--method", "derta" if has_triples else "vanilla"])
    assert ("cut " in capsys.readouterr().out) == has_triples


def test_rows_as_the_release_has_them(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in RELEASE))
    check_show_and_train(file, tmp_path, tokenizer, ["--prompt_format", "derta-release"])


def test_the_four_released_rows(
    shared: Path, tmp_path: Path, tokenizer: PreTrainedTokenizerFast, capsys: pytest.CaptureFixture[str]
) -> None:
    file = shared / "data" / "derta_example_rows.jsonl"
    options = ["--prompt_format", "derta-release", "--refusal_form", "bare"]
    check_show_and_train(file, tmp_path, tokenizer, [*options, "--max_length", "1024"])
    shown = "".join(line.strip("│ ") for line in capsys.readouterr().out.splitlines())
    assert shown.count("derta_example_rows.jsonl:4") >= 3
    assert "[\\INST]" in shown
