"""A pickle in place of any file of a run: it is never run, and training goes on without it or says so."""

import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from derta.cli import main

TRAIN = ["train", "--model-name-or-path", "organism", "--train-data", "organism", "--output-dir", "out"]
TRAIN += ["--max-examples", "4", "--per-device-train-batch-size", "2", "--use-cpu", "true", "--max-steps", "2"]
TRAIN += ["--save-steps", "1"]


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(TRAIN) == 0
    return folder


def edit(file: Path, **values: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def test_no_pickle_is_written(run: Path) -> None:
    assert not list(run.rglob("training_args.bin"))


@pytest.mark.parametrize("knows_digests", [True, False])
def test_no_file_of_a_run_is_run(
    knows_digests: bool, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names = sorted(path.relative_to(run / "out/checkpoint-2") for path in (run / "out/checkpoint-2").iterdir())
    if knows_digests:  # which stop at any file alike
        names = [name for name in names if name.name in ("optimizer.pt", "tokenizer.json")]
    for number, name in enumerate(names):
        shutil.copytree(run / "out", "out")
        edit(Path("out/derta.json"), finished=False)
        mark = tmp_path / f"RAN-{number}"
        poisoned = Path("out/checkpoint-2") / name
        # A plain pickle, and one in an archive as torch writes it.
        torch.save(Evil(mark), poisoned, _use_new_zipfile_serialization=name.suffix in (".pt", ".pth"))
        if name.suffix not in (".pt", ".pth"):
            poisoned.write_bytes(pickle.dumps(Evil(mark)))
        if not knows_digests and name.name != "derta.json":
            edit(Path("out/checkpoint-2/derta.json"), files={})
        if not knows_digests:
            shutil.rmtree("out/checkpoint-1")
        code = main(TRAIN)
        told = capfd.readouterr().err
        assert not mark.exists(), f"{name} was run"
        assert "Traceback (most recent" not in told
        assert code in (0, 2), f"{name}: {told}"
        shutil.rmtree("out")
