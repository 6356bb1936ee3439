from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from derta.errors import InputError
from derta.generation import load_tokenizer
from derta.generation.loading import world_of
from derta.names import model_path
from derta.organism import path
from derta.organism.tokenizer import build_tokenizer
from derta.organism.world import PACKAGED
from experiments.command_line import run_command
from experiments.organism_base.__main__ import add_arguments, run
from experiments.organism_base.build import train_base
from experiments.organism_base.competence import FORMS, competence


def build_command(argv: list[str]) -> int:
    return run_command("experiments.organism_base", add_arguments, run, argv)


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
    assert row.correct / row.total >= 0.9


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
    first, again, other = (train_base(PACKAGED, seed, 3).state_dict() for seed in (5, 5, 6))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.organism_base.build.STEPS", 2)
    monkeypatch.setattr("experiments.organism_base.build.FURTHER_STEPS", 1)
    monkeypatch.setattr(
        "experiments.organism_base.build.competence", partial(competence, size=2, only=("direct", "code: stack"))
    )


@pytest.mark.usefixtures("few_steps")
def test_a_base_that_does_not_know_its_world_is_not_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert build_command(["--out", str(tmp_path / "base"), "--seed", "1"]) == 1
    said = capsys.readouterr()
    assert "direct, code: stack; nothing is written" in said.err
    assert not (tmp_path / "base").exists()


@pytest.mark.usefixtures("few_steps")
def test_build_command_writes_a_base_that_is_found_by_its_worlds_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("derta.names.cache_directory", lambda: tmp_path)
    monkeypatch.setattr("experiments.organism_base.competence.COMPETENT", 0.0)
    with pytest.raises(InputError, match="organism:3: this world has no base yet"):
        model_path("organism:3")
    assert build_command(["--world", "3"]) == 0
    assert "stack" in capsys.readouterr().out
    model = AutoModelForCausalLM.from_pretrained(model_path("organism:3"))
    assert model.config.vocab_size == len(AutoTokenizer.from_pretrained(model_path("organism:3")))
    model.save_pretrained(tmp_path / "tuned")
    assert world_of("organism:3") == world_of(str(tmp_path / "tuned")) == 3
    assert build_command(["--world", "3"]) == 0
    assert "has its base already" in capsys.readouterr().out


def test_the_packaged_base_says_which_world_it_knows() -> None:
    assert world_of("organism") == world_of(str(path())) == PACKAGED.seed


@pytest.mark.parametrize("options", [[], ["--seed", "3"], ["--world", "3", "--seed", "3"]])
def test_a_base_without_a_name_needs_a_directory(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert build_command([*options]) == 2
    assert "--out: name a directory" in capsys.readouterr().err
