"""Code that lies beside a model is never run, nor asked about, whatever command reads the model."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from peft import LoraConfig, get_peft_model

from derta.cli import main
from derta.generation.loading import load_weights
from derta.organism import path

CLASSES = "from transformers import LlamaConfig as C, LlamaForCausalLM as M, PreTrainedTokenizerFast as T\n"
COMMANDS = {
    "train": "train --model-name-or-path model --train-data organism --output-dir out --max-steps 1 --use-cpu true",
    "dry run": "train --model-name-or-path model --train-data organism --dry-run",
    "eval": "eval --model model --behaviours organism --attacks direct --limit 1 --out out",
    "eval through hf": "eval --model hf/model --behaviours organism --attacks direct --limit 1 --out out",
    "eval of an adapter": "eval --model adapter --behaviours organism --attacks direct --limit 1 --out out",
    "judge": "eval --model organism --judge guideline=model --attacks direct --limit 1 --out out",
    "data check": "data check data.jsonl --model model",
    "data show": "data show data.jsonl --model model",
    "merge": "merge --adapter adapter --out out",
}
Edit = Callable[[dict[str, Any]], Any]


def edit(file: Path, change: Edit) -> None:
    document = json.loads(file.read_text())
    change(document)
    file.write_text(json.dumps(document))


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("made") / "adapter"
    get_peft_model(load_weights("organism"), LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained(directory)
    edit(directory / "adapter_config.json", lambda config: config.update(base_model_name_or_path="model"))
    return directory


@pytest.fixture(autouse=True)
def _here(adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with a model whose code leaves a mark, an adapter for it, data, and a user who says yes to anything."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(path(), "model")
    Path("model/evil.py").write_text(f"open({str(tmp_path / 'RAN')!r}, 'w').close()\n{CLASSES}")
    shutil.copytree(adapter, "adapter")
    row = {"prompt": "how to open the vault?", "chosen": "sorry no", "rejected": "take a key"}
    Path("data.jsonl").write_text(json.dumps(row) + "\n")
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 100))


def poison_model(kind: str) -> None:
    of_model = {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"}
    edit(Path("model/config.json"), lambda config: config.update(model_type=kind, auto_map=of_model))


def poison_tokenizer() -> None:
    of_tokenizer = {"auto_map": {"AutoTokenizer": [None, "evil.T"]}, "tokenizer_class": "EvilTokenizer"}
    edit(Path("model/tokenizer_config.json"), lambda config: config.update(of_tokenizer))


def outcome(capsys: pytest.CaptureFixture[str], command: str) -> tuple[int, str]:
    code = main(command.split())
    told = capsys.readouterr().err
    assert not Path("RAN").exists(), "code beside the model was run"
    assert "Traceback" not in told
    return code, "".join(line for line in told.splitlines(keepends=True) if line.startswith("derta: error"))


@pytest.mark.parametrize(
    ("part", "name"),
    [("tokenizer", name) for name in COMMANDS]
    # Those two read the tokenizer alone.
    + [("model", name) for name in COMMANDS if name not in ("data check", "data show")],
)
def test_a_model_that_needs_its_own_code_is_refused(part: str, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    if part == "model":
        poison_model("evil")
    else:
        poison_tokenizer()
    code, told = outcome(capsys, COMMANDS[name])
    assert code == 2
    assert "brings code of its own, which derta doesn't run" in told
    assert told.count("\n") == 1


@pytest.mark.parametrize("name", ["dry run", "data check", "data show"])
def test_code_beside_a_model_that_can_do_without_is_left_alone(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    poison_model("llama")
    assert outcome(capsys, COMMANDS[name]) == (0, "")


def test_an_option_does_not_run_it_either(capsys: pytest.CaptureFixture[str]) -> None:
    poison_model("evil")
    for option in ("-M trust_remote_code=true", "-M trust_remote_code=yes"):
        for name in ("eval", "eval through hf"):
            assert "trust_remote_code" in outcome(capsys, f"{COMMANDS[name]} {option}")[1]
    options = '--model-init-kwargs {"trust_remote_code":true}'
    assert "trust_remote_code: code beside" in outcome(capsys, f"{COMMANDS['train']} {options}")[1]
