"""The run directory: whose run it holds, where it stands, and which checkpoint to go on from."""

import errno
import json
import logging
import os
import re
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from safetensors import SafetensorError, safe_open
from transformers import TrainerState
from transformers.trainer import TRAINER_STATE_NAME

from derta.errors import InputError, first_line
from derta.files import DRAFT, MODEL_FILES, file_digests, write_json, write_text
from derta.run_identity import IDENTITY, check_files, read_identity

logger = logging.getLogger(__name__)

CONFIG = "config.yaml"

# How a run is spread over devices is no part of whose run it is.
_SPREAD = ("fsdp", "fsdp_config", "deepspeed")
_NAMES = {"fsdp": "FSDP2", "deepspeed": "DeepSpeed"}


@dataclass(frozen=True)
class RunDirectory:
    """The output directory of one run.

    Attributes:
        path: Names the directory.
        identity: Says whose run it is: `method`, `seed`, `base`, `settings` (options that change the result)
            and `data` (a fingerprint of the examples).
    """

    path: Path
    identity: dict[str, Any]

    def check(self, overwrite: bool) -> None:
        """Stop if the directory is not this run's to write to.

        Raises:
            InputError: It holds another run (unless `overwrite`), or something that is no run.
        """
        below = next(parent for parent in self.path.parents if os.path.lexists(parent))
        if not below.is_dir():
            raise InputError(f"output_dir: {self.path} can't be written to: {below} is no directory")
        found = read_identity(self.path)
        if found is not None and not overwrite:
            self._require_same(found, self.path, "holds another run")
        for path in self.path.glob("checkpoint-*"):
            if _is_of_a_step(path) and (path.is_symlink() or not path.is_dir()):
                raise InputError(f"output_dir: {path} stands where a checkpoint belongs, and is none; move it away")
        if found is None and self.path.exists() and (not self.path.is_dir() or self._holds_others()):
            raise InputError(f"output_dir: {self.path} holds something else than a run; give another --output_dir")

    def _holds_others(self) -> bool:
        """Whether the directory holds more than a kill leaves of claiming it."""
        return any(path.name != CONFIG and path.suffix != DRAFT for path in self.path.iterdir())

    def claim(self, config: dict[str, Any], overwrite: bool) -> None:
        """Record in the directory that it holds this run, unless it does so already.

        Args:
            config: Is a recipe for the run.
            overwrite: Forgets the run that the directory holds.
        """
        held = read_identity(self.path) is not None
        if held and not overwrite:
            return
        if held:
            self._clear()
        self.path.mkdir(parents=True, exist_ok=True)
        write_text(self.path / CONFIG, yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
        write_json(self.path / IDENTITY, {**self.identity, "finished": False})

    @property
    def finished(self) -> bool:
        """Whether the run is done and its model saved."""
        identity = read_identity(self.path)
        return bool(identity and identity.get("finished"))

    def finish(self) -> None:
        """Record that the model is saved, and what its files are."""
        files = file_digests(self.path, *MODEL_FILES)
        write_json(self.path / IDENTITY, {**self.identity, "finished": True, "files": files})

    def newest_checkpoint(self) -> Path | None:
        """Return the newest complete checkpoint, and remove those that a kill left incomplete.

        One that can't be read any more is named and left alone, and the one before it is taken.

        Raises:
            InputError: A checkpoint belongs to another configuration, or none of them can be read.
        """
        complete: list[Path] = []
        damaged: list[str] = []
        for checkpoint in checkpoints_in(self.path):
            try:
                found = read_identity(checkpoint)
            except InputError as error:
                damaged.append(str(error))
                continue
            if found is None:
                shutil.rmtree(checkpoint)
                continue
            self._require_same(found, checkpoint, "is a checkpoint of another configuration")
            if complete:
                continue  # older than the one to go on from
            try:
                check_readable(checkpoint)
                check_files(checkpoint, found)
            except InputError as error:
                damaged.append(str(error))
            else:
                complete.append(checkpoint)
        if damaged and not complete:
            raise InputError(f"output_dir: {damaged[0]}; there is no other checkpoint: --overwrite starts anew")
        for told in damaged:
            logger.warning("%s; it is left out", told)
        return complete[0] if complete else None

    def _require_same(self, found: dict[str, Any], where: Path, what: str) -> None:
        differences = _differences(found, self.identity)
        if differences:
            raise InputError(
                f"output_dir: {where} {what} ({'; '.join(differences[:4])}); "
                "give another --output_dir, or --overwrite to start anew"
            )

    def _clear(self) -> None:
        """Remove what makes the directory a run; a model in it is written over at the end."""
        (self.path / IDENTITY).unlink()
        for checkpoint in checkpoints_in(self.path):
            shutil.rmtree(checkpoint)


def checkpoints_in(directory: Path) -> list[Path]:
    """Return the checkpoints of a run directory, the newest first; what else a user named so isn't ours."""
    found = [path for path in directory.glob("checkpoint-*") if _is_of_a_step(path) and path.is_dir()]
    return sorted((path for path in found if not path.is_symlink()), key=_step, reverse=True)


def remove_old_checkpoints(directory: Path, limit: int | None, best: str | None) -> None:
    """Remove the oldest checkpoints until `limit` of them are left; never the newest, nor the best."""
    checkpoints = checkpoints_in(directory)
    kept = {each for each in checkpoints if each == checkpoints[0] or (best and each.name == Path(best).name)}
    surplus = len(checkpoints) - max(limit, len(kept)) if limit is not None else 0
    for checkpoint in [each for each in reversed(checkpoints) if each not in kept][: max(0, surplus)]:
        shutil.rmtree(checkpoint, ignore_errors=True)


def check_readable(checkpoint: Path) -> None:
    """Stop at a checkpoint whose files were cut off or lost after it was complete.

    Raises:
        InputError: One of its files can't be read.
    """
    path = checkpoint / TRAINER_STATE_NAME
    try:
        if type(TrainerState.load_from_json(str(path)).global_step) is not int:
            raise ValueError("global_step: no whole number")
        for index in checkpoint.glob("*.safetensors.index.json"):
            path = index
            for name in sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values())):
                (checkpoint / name).stat()
        for path in sorted(checkpoint.glob("*.safetensors")):
            with safe_open(path, "pt"):
                pass
        for path in sorted([*checkpoint.glob("*.pt"), *checkpoint.glob("*.pth")]):
            if not zipfile.is_zipfile(path):  # as torch saves
                raise ValueError("cut off")
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, SafetensorError) as error:
        raise InputError(f"{path}: can't be read: {getattr(error, 'strerror', None) or first_line(error)}") from error


def _is_of_a_step(path: Path) -> bool:
    return re.fullmatch(r"checkpoint-[0-9]+", path.name) is not None


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("checkpoint-"))


def _differences(found: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """Say how two identities differ, in the order of their keys."""
    differences = []
    for key in ("method", "seed", "base", "data"):
        if found.get(key) != wanted[key]:
            differences.append(f"{key} {found.get(key)!r}, now {wanted[key]!r}")
    old, new = found.get("settings", {}), json.loads(json.dumps(wanted["settings"]))
    for key in dict.fromkeys([*old, *new]):
        if key not in _SPREAD and old.get(key) != new.get(key):
            differences.append(f"{key} {old.get(key, 'default')!r}, now {new.get(key, 'default')!r}")
    return differences


def check_resume(checkpoint: Path, sharding: str | None, processes: int) -> int | None:
    """Stop at a checkpoint that this launch can't read; returns the number of processes that saved it, if it says.

    Any number of processes reads a checkpoint of DDP or one process, without sharding, and one of FSDP2, with or
    without. DeepSpeed cuts the optimizer's state for the processes it has.

    Args:
        checkpoint: Names its directory.
        sharding: Says how this launch shards: `"fsdp"`, `"deepspeed"` or not at all.
        processes: Counts the processes of this launch.

    Raises:
        InputError: It was saved in a form that this launch can't read.
    """
    identity = read_identity(checkpoint) or {}
    saved_on: int | None = identity.get("processes")
    saved = identity.get("sharding")
    if saved == "deepspeed" and (sharding, processes) != ("deepspeed", saved_on):
        raise InputError(
            f"{checkpoint}: saved by DeepSpeed on {saved_on} process(es), which only DeepSpeed on {saved_on} can read; "
            "launch it so, or train with FSDP2, whose checkpoints resume on any number"
        )
    if sharding is not None and sharding != saved and "sharding" in identity:
        raise InputError(
            f"{checkpoint}: saved {'by FSDP2' if saved else 'unsharded'}, which {_NAMES[sharding]} can't read; "
            f"go on without {_NAMES[sharding]}, or give another --output_dir"
        )
    return saved_on


def require_disk_space(directory: Path, needed: int) -> None:
    """Stop before training what could not be saved.

    Raises:
        InputError: Fewer than `needed` bytes are free where `directory` is.
    """
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise InputError(
            f"output_dir: no disk space: a checkpoint and the model need {needed / 1e9:.1f} GB, "
            f"{free / 1e9:.1f} GB are free in {directory}; free some, or give another --output_dir"
        )


def is_disk_full(error: Exception, directory: Path) -> bool:
    """Whether `error` says that the disk is full; some writers only say that they failed."""
    if getattr(error, "errno", None) == errno.ENOSPC or "No space left on device" in str(error):
        return True
    return isinstance(error, OSError | RuntimeError) and shutil.disk_usage(directory).free < 2**20
