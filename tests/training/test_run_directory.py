"""Run directories: whose run it is, what a kill leaves, and full disks."""

import errno
import json
import re
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from derta.errors import InputError
from derta.files import write_json
from derta.run_identity import read_identity
from derta.training.run_directory import (
    RunDirectory,
    check_readable,
    check_resume,
    checkpoints_in,
    is_disk_full,
    remove_old_checkpoints,
    require_disk_space,
)


def run(path: Path, **changes: Any) -> RunDirectory:
    identity = {"method": "derta", "seed": 1, "base": "m", "data": "ab", "settings": {"learning_rate": 0.1}}
    return RunDirectory(path, {**identity, **changes})


def prepare(directory: RunDirectory, overwrite: bool = False) -> None:
    directory.check(overwrite)
    directory.claim({"method": "derta"}, overwrite)


def test_a_run_claims_a_new_directory_and_finds_it_again(tmp_path: Path) -> None:
    directory = run(tmp_path / "out")
    prepare(directory)
    assert (tmp_path / "out" / "config.yaml").read_text() == "method: derta\n"
    assert not directory.finished
    prepare(directory)
    directory.finish()
    assert run(tmp_path / "out").finished


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"method": "vanilla"}, "method 'derta', now 'vanilla'"),
        ({"seed": 2}, "seed 1, now 2"),
        ({"data": "cd"}, "data 'ab', now 'cd'"),
        ({"settings": {"learning_rate": 0.2}}, "learning_rate 0.1, now 0.2"),
        ({"settings": {}}, "learning_rate 0.1, now 'default'"),
    ],
)
def test_another_run_is_refused_and_the_difference_named(tmp_path: Path, changes: dict[str, Any], named: str) -> None:
    prepare(run(tmp_path), overwrite=False)
    with pytest.raises(InputError, match=f"holds another run .*{named}.*--overwrite"):
        prepare(run(tmp_path, **changes), overwrite=False)


def test_overwrite_starts_anew_but_only_over_a_run(tmp_path: Path) -> None:
    prepare(run(tmp_path / "run"), overwrite=False)
    write_json(tmp_path / "run" / "derta.json", {"method": "vanilla"})
    (tmp_path / "run" / "checkpoint-3").mkdir()
    prepare(run(tmp_path / "run"), overwrite=True)
    assert not (tmp_path / "run" / "checkpoint-3").exists()
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").write_text("cat")
    with pytest.raises(InputError, match="holds something else than a run"):
        prepare(run(tmp_path / "photos"), overwrite=True)
    assert (tmp_path / "photos" / "cat.png").exists()


def test_newest_complete_checkpoint_and_no_torn_one(tmp_path: Path) -> None:
    directory = run(tmp_path)
    prepare(directory)
    for step in (9, 10):
        (tmp_path / f"checkpoint-{step}").mkdir()
        write_json(tmp_path / f"checkpoint-{step}" / "derta.json", {**directory.identity, "step": step})
        write_json(tmp_path / f"checkpoint-{step}" / "trainer_state.json", {})
    (tmp_path / "checkpoint-11").mkdir()
    (tmp_path / "checkpoint-11" / "model.safetensors").write_text("torn")
    assert directory.newest_checkpoint() == tmp_path / "checkpoint-10"
    assert not (tmp_path / "checkpoint-11").exists()


def checkpoint(directory: RunDirectory, step: int) -> Path:
    path = directory.path / f"checkpoint-{step}"
    path.mkdir()
    (path / "trainer_state.json").write_text("{}")
    save_file({"w": torch.zeros(3)}, path / "model.safetensors")
    torch.save({"state": 1}, path / "optimizer.pt")
    write_json(path / "derta.json", {**directory.identity, "step": step})
    return path


@pytest.mark.parametrize("name", ["trainer_state.json", "model.safetensors", "optimizer.pt", "derta.json"])
@pytest.mark.parametrize("content", [b"", b"{", None])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_taken(
    name: str, content: bytes | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = run(tmp_path)
    prepare(directory)
    before, newest = checkpoint(directory, 9), checkpoint(directory, 10)
    file = newest / name
    file.write_bytes(file.read_bytes()[:-2] if content is None else content)
    assert directory.newest_checkpoint() == before
    assert f"checkpoint-10/{name}: " in caplog.text
    assert newest.exists()
    shutil.rmtree(before)
    with pytest.raises(InputError, match=rf"output_dir: .*checkpoint-10/{name}: .*there is no other checkpoint"):
        directory.newest_checkpoint()


def test_a_shard_that_is_gone(tmp_path: Path) -> None:
    directory = run(tmp_path)
    prepare(directory)
    newest = checkpoint(directory, 10)
    write_json(newest / "model.safetensors.index.json", {"weight_map": {"w": "model-1.safetensors"}})
    with pytest.raises(InputError, match="No such file"):
        check_readable(newest)


def test_old_checkpoints_go_and_what_a_user_named_so_stays(tmp_path: Path) -> None:
    directory = run(tmp_path)
    prepare(directory)
    for step in (2, 9, 10, 11):
        checkpoint(directory, step)
    (tmp_path / "checkpoint-best").mkdir()
    (tmp_path / "checkpoint-last").write_text("11")
    (tmp_path / "checkpoint-12").symlink_to(tmp_path / "checkpoint-9", target_is_directory=True)
    remove_old_checkpoints(tmp_path, None, None)
    assert [each.name for each in checkpoints_in(tmp_path)] == [f"checkpoint-{step}" for step in (11, 10, 9, 2)]
    remove_old_checkpoints(tmp_path, 3, str(tmp_path / "checkpoint-2"))
    assert [each.name for each in checkpoints_in(tmp_path)] == ["checkpoint-11", "checkpoint-10", "checkpoint-2"]
    remove_old_checkpoints(tmp_path, 1, None)
    assert [each.name for each in checkpoints_in(tmp_path)] == ["checkpoint-11"]
    with pytest.raises(InputError, match="checkpoint-12 stands where a checkpoint belongs, and is none; move it away"):
        directory.check(overwrite=False)
    (tmp_path / "checkpoint-12").unlink()
    prepare(directory, overwrite=True)
    assert sorted(each.name for each in tmp_path.glob("checkpoint-*")) == ["checkpoint-best", "checkpoint-last"]


def test_checkpoint_of_another_configuration(tmp_path: Path) -> None:
    directory = run(tmp_path)
    prepare(directory)
    (tmp_path / "checkpoint-5").mkdir()
    write_json(tmp_path / "checkpoint-5" / "derta.json", {**run(tmp_path, seed=7).identity, "step": 5})
    with pytest.raises(InputError, match=r"checkpoint-5 is a checkpoint of another configuration \(seed 7, now 1"):
        directory.newest_checkpoint()


def test_sharding_is_no_part_of_a_run(tmp_path: Path) -> None:
    prepare(run(tmp_path, settings={"fsdp": "true", "fsdp_config": {"version": 2}}))
    prepare(run(tmp_path, settings={}))


@pytest.mark.parametrize("saved", [(None, 2), ("fsdp", 2)])
@pytest.mark.parametrize("processes", [1, 3])
def test_checkpoints_that_any_number_of_processes_reads(
    tmp_path: Path, saved: tuple[str | None, int], processes: int
) -> None:
    write_json(tmp_path / "derta.json", dict(zip(("sharding", "processes"), saved, strict=True)))
    assert check_resume(tmp_path, None, processes) == 2


@pytest.mark.parametrize(
    ("saved", "now", "reason"),
    [
        (("deepspeed", 2), ("deepspeed", 3), "saved by DeepSpeed on 2 process(es), which only DeepSpeed on 2 can read"),
        (("deepspeed", 2), (None, 2), "which only DeepSpeed on 2 can read"),
        ((None, 2), ("fsdp", 2), "saved unsharded, which FSDP2 can't read"),
        (("fsdp", 2), ("deepspeed", 2), "saved by FSDP2, which DeepSpeed can't read"),
    ],
)
def test_checkpoints_that_a_launch_cannot_read(
    tmp_path: Path, saved: tuple[str | None, int], now: tuple[str | None, int], reason: str
) -> None:
    write_json(tmp_path / "derta.json", dict(zip(("sharding", "processes"), saved, strict=True)))
    with pytest.raises(InputError, match=re.escape(reason)):
        check_resume(tmp_path, *now)


def test_unreadable_identity(tmp_path: Path) -> None:
    (tmp_path / "derta.json").write_text("{")
    with pytest.raises(InputError, match=r"derta\.json: not JSON"):
        read_identity(tmp_path)


def test_disk_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(100, 0, 10 * 2**30))
    require_disk_space(tmp_path, 2**30)
    with pytest.raises(InputError, match=r"no disk space: .* need 21\.5 GB, 10\.7 GB are free"):
        require_disk_space(tmp_path, 20 * 2**30)
    assert is_disk_full(OSError(errno.ENOSPC, "No space left on device"), tmp_path)
    assert is_disk_full(RuntimeError("I/O error: No space left on device (os error 28)"), tmp_path)
    assert not is_disk_full(ValueError("wrong"), tmp_path)
    assert not is_disk_full(RuntimeError("wrong shape"), tmp_path)


def test_json_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}
