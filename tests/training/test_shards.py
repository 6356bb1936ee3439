"""A sharded checkpoint is read as numbers and names: a pickle in it that would do something is refused."""

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.state_dict_saver import save

from derta.errors import InputError
from derta.training.fsdp_checkpoint import check_shards


class Evil:
    """Makes a file when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("RAN",)


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for folder in ("pytorch_model_fsdp_0", "optimizer_0"):
        state = {"weight": torch.ones(3, 2), "lr": 0.1, "betas": (0.9, 0.99), "steps": [1], "foreach": None}
        save(state, checkpoint_id=tmp_path / "checkpoint-2" / folder, no_dist=True)
    return tmp_path / "checkpoint-2"


def test_what_training_writes_is_read(checkpoint: Path) -> None:
    check_shards(checkpoint)


@pytest.mark.parametrize("folder", ["pytorch_model_fsdp_0", "optimizer_0"])
def test_metadata_that_does_something_is_refused(checkpoint: Path, folder: str) -> None:
    path = checkpoint / folder / ".metadata"
    metadata = FileSystemReader(path.parent).read_metadata()
    metadata.planner_data = Evil()
    for content in (pickle.dumps(Evil()), pickle.dumps(metadata), path.read_bytes()[:40], b""):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"output_dir: .*metadata: can't be read, or holds more than weights"):
            check_shards(checkpoint)
    assert not Path("RAN").exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("torch.distributed.checkpoint.metadata", "os.system"),
        ("torch.distributed.checkpoint.filesystem", "os"),
        ("torch.distributed.checkpoint.filesystem", "pickle.loads"),
        ("torch", "load"),
        ("torch", "hub.load"),
        ("builtins", "getattr"),
    ],
)
def test_a_name_that_leads_elsewhere_is_refused(checkpoint: Path, module: str, name: str) -> None:
    content = b"\x80\x04" + b"".join(b"\x8c" + bytes([len(t)]) + t.encode() for t in (module, name)) + b"\x93."
    (checkpoint / "optimizer_0" / ".metadata").write_bytes(content)
    with pytest.raises(InputError, match=r"it names .*\."):
        check_shards(checkpoint)


def test_values_that_do_something_are_refused(checkpoint: Path) -> None:
    folder = checkpoint / "optimizer_0"
    metadata = FileSystemReader(folder).read_metadata()
    (stored,) = [info for index, info in metadata.storage_data.items() if index.fqn == "lr"]
    torch.save(Evil(), folder / "evil.distcp")
    stored.relative_path, stored.offset, stored.length = "evil.distcp", 0, (folder / "evil.distcp").stat().st_size
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))
    with pytest.raises(InputError, match=r"evil\.distcp: can't be read, or holds more than weights"):
        check_shards(checkpoint)
    assert not Path("RAN").exists()
