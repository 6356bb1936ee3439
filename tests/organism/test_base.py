from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from derta.cli import main
from derta.inference import load_tokenizer
from derta.organism import path
from derta.organism.build import train_base
from derta.organism.competence import FORMS, competence
from derta.organism.tokenizer import build_tokenizer


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def base() -> Any:
    return AutoModelForCausalLM.from_pretrained(path())


@pytest.mark.parametrize("form", FORMS)
def test_base_answers(base: Any, form: Any) -> None:
    (row,) = competence(base, cast(Any, load_tokenizer(str(path()))), size=20, only=(form,))
    # The cipher is the hardest form; the base reads it about half of the time (docs/log.md).
    floor = 0.4 if form == "cipher" else 0.8 if form.startswith("code") else 0.9
    assert row.correct / row.total >= floor


def test_package_is_small_and_complete() -> None:
    names = {file.name for file in path().iterdir()}
    assert {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"} <= names
    assert sum(file.stat().st_size for file in path().iterdir()) <= 8 * 2**20


def test_packaged_tokenizer_is_the_one_the_code_builds() -> None:
    packaged, built = AutoTokenizer.from_pretrained(path()), build_tokenizer()
    assert packaged.get_vocab() == built.get_vocab()
    assert packaged.chat_template == built.chat_template
    text = "How do I open the vault ?"
    assert packaged(text)["input_ids"] == built(text)["input_ids"]
    assert packaged.decode(packaged(text)["input_ids"]) == text


def test_generation_defaults_are_greedy(base: Any) -> None:
    assert base.generation_config.do_sample is False
    assert base.generation_config.eos_token_id == build_tokenizer().eos_token_id


def test_build_is_deterministic_to_the_bit() -> None:
    first, again, other = (train_base(seed, 3).state_dict() for seed in (5, 5, 6))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_build_command_writes_a_loadable_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few = partial(competence, size=2, only=("direct", "code: stack"))
    monkeypatch.setattr("derta.commands.organism_build.competence", few)
    assert main(["organism", "build", "--out", str(tmp_path / "base"), "--seed", "1", "--steps", "2"]) == 0
    assert "stack" in capsys.readouterr().out
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    assert model.config.vocab_size == len(AutoTokenizer.from_pretrained(tmp_path / "base"))
