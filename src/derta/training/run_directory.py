"""The run directory: whose run it holds, where it stands, and which checkpoint to go on from."""

import errno
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from derta.errors import InputError
from derta.files import write_json, write_text
from derta.run_identity import IDENTITY, read_identity

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
        found = read_identity(self.path)
        if found is not None:
            if not overwrite:
                self._require_same(found, self.path, "holds another run")
        elif self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise InputError(f"output_dir: {self.path} holds something else than a run; give another --output_dir")

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
        """Record that the model is saved."""
        write_json(self.path / IDENTITY, {**self.identity, "finished": True})

    def newest_checkpoint(self) -> Path | None:
        """Return the newest complete checkpoint, and remove those that a kill left incomplete.

        Raises:
            InputError: The checkpoint belongs to another configuration.
        """
        checkpoints = sorted(self.path.glob("checkpoint-*"), key=_step, reverse=True)
        complete: list[Path] = []
        for checkpoint in checkpoints:
            found = read_identity(checkpoint)
            if found is None:
                shutil.rmtree(checkpoint)
            else:
                self._require_same(found, checkpoint, "is a checkpoint of another configuration")
                complete.append(checkpoint)
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
        for checkpoint in self.path.glob("checkpoint-*"):
            shutil.rmtree(checkpoint)


def _step(checkpoint: Path) -> int:
    suffix = checkpoint.name.removeprefix("checkpoint-")
    return int(suffix) if suffix.isdigit() else -1


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
