"""What stands in the way of a command: damaged checkpoints, names that are taken, pipes at either end."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from derta.cli import main

TRAIN = ["train", "--model-name-or-path", "organism", "--train-data", "organism", "--output-dir", "out"]
TRAIN += ["--max-examples", "8", "--per-device-train-batch-size", "2", "--use-cpu", "true", "--max-steps", "6"]
TRAIN += ["--save-steps", "2", "--save-total-limit", "2"]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def unfinish() -> None:
    identity = Path("out/derta.json")
    identity.write_text(json.dumps({**json.loads(identity.read_text()), "finished": False}))


def test_a_checkpoint_that_was_cut_off_is_named_and_the_one_before_it_used(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(TRAIN) == 0
    whole = load_file("out/model.safetensors")
    unfinish()
    optimizer = Path("out/checkpoint-6/optimizer.pt")
    optimizer.write_bytes(optimizer.read_bytes()[:-1000])
    capfd.readouterr()
    assert main(TRAIN) == 0
    told = "".join(capfd.readouterr())
    assert "out/checkpoint-6/optimizer.pt: can't be read: cut off; it is left out" in told
    assert "going on from checkpoint-4" in told
    again = load_file("out/model.safetensors")
    assert all((again[name] == whole[name]).all() for name in whole)
    unfinish()
    for file in Path("out").glob("checkpoint-*/trainer_state.json"):
        file.write_text("{")
    assert main(TRAIN) == 2
    told = capfd.readouterr().err
    assert "output_dir: out/checkpoint-6/trainer_state.json: can't be read" in told
    assert "--overwrite starts anew" in told
    assert main([*TRAIN, "--overwrite"]) == 0


def test_what_a_user_named_like_a_checkpoint_stays(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(TRAIN) == 0
    Path("out/checkpoint-best").mkdir()
    Path("out/checkpoint-best/mine.txt").write_text("mine")
    Path("out/checkpoint-note").write_text("mine too")
    unfinish()
    assert main(TRAIN) == 0
    assert main([*TRAIN, "--overwrite"]) == 0
    assert Path("out/checkpoint-best/mine.txt").read_text() == "mine"
    assert Path("out/checkpoint-note").read_text() == "mine too"
    assert len(list(Path("out").glob("checkpoint-[0-9]*"))) == 2
    Path("out/checkpoint-8").write_text("in the way")
    capfd.readouterr()
    assert main([*TRAIN, "--overwrite"]) == 2
    assert "out/checkpoint-8 stands where a checkpoint belongs" in capfd.readouterr().err


@pytest.mark.parametrize("command", ["data check pipe.jsonl", "data convert pipe.jsonl --out out.jsonl"])
def test_a_pipe_as_data_does_not_hang(command: str, capfd: pytest.CaptureFixture[str]) -> None:
    os.mkfifo("pipe.jsonl")
    assert main(command.split()) == 2
    assert "derta: error: pipe.jsonl: is a pipe or a device" in capfd.readouterr().err


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("command", ["data check --schemas", "data check data.jsonl", "recipes show organism"])
def test_a_reader_that_goes_away_is_no_error(command: str, unbuffered: str) -> None:
    row = {"prompt": "how to open it?", "chosen": "sorry no", "rejected": "take a key"}
    Path("data.jsonl").write_text(json.dumps(row) + "\n")
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "derta", *command.split()],
        stdout=write,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        text=True,
        timeout=300,
    )
    os.close(write)
    assert done.returncode == 141
    assert "Error" not in done.stderr
    assert "Traceback" not in done.stderr
