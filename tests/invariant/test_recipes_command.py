"""Recipes by name: `derta recipes`, and `derta train --config NAME`."""

import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

from derta.cli import main
from derta.names import recipes
from tests.invariant.test_data_commands import one_error

ROOT = Path(__file__).parents[2]


def test_every_recipe_is_listed_with_what_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes"]) == 0
    listed = capsys.readouterr().out
    names = {file.relative_to(ROOT / "recipes").with_suffix("").as_posix() for file in (ROOT / "recipes").rglob("*.y*")}
    assert set(recipes()) == names
    for name, file in recipes().items():
        assert name in listed
        first = file.read_text().splitlines()[0]
        assert first.startswith("# ")
        assert first.endswith((".", ")"))
        assert " ".join(first[2:].split()[:3]) in listed


def test_a_recipe_is_shown_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "show", "qwen3-8b-lora"]) == 0
    assert capsys.readouterr().out == (ROOT / "recipes" / "qwen3-8b-lora.yaml").read_text()


def test_a_copy_overwrites_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "recipes" / "organism.yaml").read_text()
    for words, path in ([], "organism.yaml"), (["mine.yaml"], "mine.yaml"):
        assert main(["recipes", "copy", "organism", *words]) == 0
        assert f"copied organism to {path}" in capsys.readouterr().out
        assert Path(path).read_text() == text
    Path("mine.yaml").write_text("mine")
    for words, path in ([], "organism.yaml"), (["mine.yaml"], "mine.yaml"):
        assert main(["recipes", "copy", "organism", *words]) == 2
        assert f"{path}: exists; name another file" in one_error(capsys)
    assert Path("mine.yaml").read_text() == "mine"
    assert main(["recipes", "copy", "organism", "no/where.yaml"]) == 2
    assert "no/where.yaml: can't be written" in one_error(capsys)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["recipes", "show", "qwen"], "qwen: no recipe has this name (did you mean 'qwen3-8b-lora'?); derta recipes"),
        (["recipes", "copy", "lama3-8b-full"], "(did you mean 'llama3-8b-full' or"),
        (["recipes", "show", "x"], "x: no recipe has this name; derta recipes lists them"),
        (["recipes", "show"], "the following arguments are required: NAME"),
        (["recipes", "copy"], "the following arguments are required: NAME"),
        (["recipes", "list", "x"], "unrecognized arguments: x"),
        (["recipes", "shw"], "invalid choice: 'shw'"),
        (["train", "--config", "mistral"], "'mistral-7b-full' or 'mistral-7b-lora'"),
        (
            ["train", "--config", "recipes/organsm.yaml"],
            "no such file and no recipe has this name (did you mean 'organism'",
        ),
        (["train", "--config", "accelerate/one_gpu"], "one_gpu.yaml:"),
    ],
)
def test_an_unknown_name_is_one_line_with_what_is_near(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert message in one_error(capsys)


def test_a_recipe_is_trained_by_its_name_and_a_path_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("qwen3-8b-lora").mkdir()  # a directory, of a run maybe, is no recipe
    assert main(["train", "--config", "organism", "--dry-run"]) == 0
    assert "200" in capsys.readouterr().out
    Path("organism").write_text("max_stepz: 1\n")
    assert main(["train", "--config=organism", "--dry-run"]) == 2
    assert "organism:1: unknown key 'max_stepz'" in one_error(capsys)
    assert main(["train", "--config", "qwen3-8b-lora", "--train-data", "none.jsonl", "--dry-run"]) == 2
    assert "none.jsonl: file not found" in one_error(capsys)


@pytest.mark.skipif(find_spec("hatchling") is None, reason="needs hatchling, which builds the wheel")
def test_recipes_travel_in_the_wheel(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = "from derta.cli import main; raise SystemExit(main(['recipes', 'show', 'accelerate/one_gpu']))"
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, cwd=tmp_path / "site", env={"PYTHONPATH": "."}, check=True, capture_output=True)
    assert done.stdout.decode() == (ROOT / "recipes" / "accelerate" / "one_gpu.yaml").read_text()
