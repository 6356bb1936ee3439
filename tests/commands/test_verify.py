"""`derta verify` says what isn't as it was written."""

import json
import shutil
from pathlib import Path

import pytest

from derta.cli import main
from derta.files import MODEL_FILES, file_digests, write_json
from derta.organism import path as organism

EVAL = "eval --model model --behaviours organism --attacks direct --limit 1 --out evaluation --max-new-tokens 24"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model that says what it consists of, and an evaluation of it."""
    folder = tmp_path_factory.mktemp("made")
    shutil.copytree(organism(), folder / "model")
    write_json(folder / "model/derta.json", {"base": "organism", "files": file_digests(folder / "model", *MODEL_FILES)})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        main(EVAL.split())
    return folder


@pytest.fixture(autouse=True)
def _here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)


def flip(path: str) -> None:
    content = bytearray(Path(path).read_bytes())
    content[len(content) // 2] ^= 1
    Path(path).write_bytes(content)


def test_what_is_as_it_was_written(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "model", "evaluation"]) == 0
    told = capsys.readouterr().out
    assert "model: as it was written" in told
    assert "evaluation: as it was written" in told


@pytest.mark.parametrize(
    ("file", "directory", "says"),
    [
        ("model/model.safetensors", "model", "model/model.safetensors: it isn't what was saved"),
        ("model/model.safetensors", "evaluation", "model: holds another model than was evaluated"),
        ("evaluation/responses.jsonl", "evaluation", "evaluation/responses.jsonl: isn't the file that"),
        ("evaluation/plan.json", "evaluation", "evaluation/plan.json: isn't the file that"),
        ("evaluation/evaluation.json", "evaluation", "evaluation/evaluation.json: isn't the file that"),
    ],
)
def test_a_flipped_bit_is_named(file: str, directory: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    if file.endswith(".json"):  # a space more leaves it JSON
        Path(file).write_text(Path(file).read_text() + " ")
    else:
        flip(file)
    assert main(["verify", directory]) == 1
    assert says in capsys.readouterr().out


def test_the_model_behind_a_guard_is_checked(capsys: pytest.CaptureFixture[str]) -> None:
    settings = Path("evaluation/evaluation.json")
    settings.write_text(settings.read_text().replace('"model": "model"', '"model": "model+guard"'))
    flip("model/model.safetensors")
    assert main(["verify", "evaluation"]) == 1
    assert "model: holds another model than was evaluated" in capsys.readouterr().out


def test_a_missing_file_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    Path("model/tokenizer.json").unlink()
    Path("evaluation/plan.json").unlink()
    assert main(["verify", "model"]) == 1
    assert "model/tokenizer.json: it is missing" in capsys.readouterr().out
    assert main(["verify", "evaluation"]) == 1
    assert "evaluation/plan.json: isn't there" in capsys.readouterr().out


def test_what_cannot_be_read_is_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    Path("model/derta.json").write_text("{")
    Path("evaluation/results.json").write_text("[]")
    for directory in ("model", "evaluation", "nowhere"):
        assert main(["verify", directory]) == 2
    assert capsys.readouterr().err.count("derta: error: ") == 3


def test_results_say_what_they_were_made_of() -> None:
    digests = json.loads(Path("evaluation/results.json").read_text())["digests"]
    assert digests.keys() == {"model", "data", "prompts", "judges", "code"}
    assert digests["judges"].keys() == {"organism"}


def test_a_model_is_not_evaluated_with_another_template_than_it_was_trained_with(
    capsys: pytest.CaptureFixture[str],
) -> None:
    identity = json.loads(Path("model/derta.json").read_text())
    again = EVAL.replace("evaluation", "again")
    for held, what in (({"template": "0"}, "chat template"), ({"refusal_tokens": {"5": "Nope"}}, "refusal token")):
        write_json(Path("model/derta.json"), {**identity, "trained_with": held})
        assert main(again.split()) == 2
        assert f"`model` model: its {what} isn't".replace("`model`", "--model") in capsys.readouterr().err


def test_a_file_that_was_added_to_a_model_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    Path("model/adapter_config.json").write_text("{}")
    assert main(["verify", "model"]) == 1
    assert "model/adapter_config.json: it wasn't saved with the model" in capsys.readouterr().out


@pytest.mark.parametrize("digests", [{"data": ["a"]}, {"judges": ["a"]}, ["a"]])
def test_results_with_other_things_than_digests_are_bad_input(
    digests: object, capsys: pytest.CaptureFixture[str]
) -> None:
    results = Path("evaluation/results.json")
    write_json(results, {**json.loads(results.read_text()), "digests": digests})
    assert main(["verify", "evaluation"]) == 2
    assert "says nothing about digests" in capsys.readouterr().err
