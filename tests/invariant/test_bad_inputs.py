"""Every bad input by name: one line, which is the one in `bad_inputs.yaml`, and exit code 2."""

import shutil
from pathlib import Path

import pytest
import yaml

from derta.cli import main
from tests.invariant.bad_inputs import BAD_INPUTS, MESSAGES, make_inputs, shown

EXPECTED: dict[str, str] = yaml.safe_load(MESSAGES.read_text("utf-8"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        make_inputs(folder)
    return folder


@pytest.mark.parametrize("name", BAD_INPUTS)
def test_a_bad_input_is_one_line_and_exit_code_2(
    name: str, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    BAD_INPUTS[name].make()
    code = main(BAD_INPUTS[name].argv)
    told = capfd.readouterr().err
    assert "Traceback (most recent" not in told
    (line,) = [line for line in told.splitlines() if line.startswith("derta: error: ")]
    assert line.isprintable()
    assert shown(line.removeprefix("derta: error: ")) == EXPECTED[name]
    assert code == 2


def test_every_message_is_of_a_bad_input() -> None:
    assert EXPECTED.keys() == BAD_INPUTS.keys()
    assert len(EXPECTED) >= 150
