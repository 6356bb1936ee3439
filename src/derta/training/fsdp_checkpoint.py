"""Checkpoints of FSDP2 runs, read by a run of any number of processes, sharded or not.

FSDP2 saves with `torch.distributed.checkpoint`: every value under its parameter's name, whoever held it, so a run that
holds whole parameters can read them as well as one that cuts them otherwise. What it writes beside the tensors are
pickles, which it would run: they are read here first, with what names nothing but its own classes and values.
"""

import io
import pickle
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from torch.distributed.checkpoint.metadata import BytesStorageMetadata, Metadata
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load

from derta.errors import InputError, first_line

# The names that accelerate gives them.
_MODEL = "pytorch_model_fsdp_0"
_OPTIMIZER = "optimizer_0"


def holds_shards(checkpoint: Path) -> bool:
    """Whether a checkpoint was saved by a sharded run."""
    return (checkpoint / _MODEL).is_dir()


class _Unpickler(pickle.Unpickler):
    """Builds what describes shards, and nothing that does something."""

    def find_class(self, module: str, name: str) -> Any:
        """Return a class of `torch.distributed.checkpoint`, a type of torch's numbers, or a path."""
        if (module, name) in _HARMLESS:
            return super().find_class(module, name)
        # A name with dots could lead out of the module, and what it imports isn't its own.
        if module in _DESCRIBING and "." not in name:
            found = super().find_class(module, name)
            if isinstance(found, type) and found.__module__ == module:
                return found
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        raise pickle.UnpicklingError(f"it names {module}.{name}")


_DESCRIBING = ("torch.distributed.checkpoint.metadata", "torch.distributed.checkpoint.filesystem")
_HARMLESS = {
    *(("torch", "Size"), ("torch.serialization", "_get_layout"), ("collections", "OrderedDict")),
    *(("pathlib", "PosixPath"), ("pathlib", "PurePosixPath"), ("pathlib._local", "PosixPath")),
}


def check_shards(checkpoint: Path) -> None:
    """Stop at a sharded checkpoint that would run code when it is read.

    Raises:
        InputError: One of its pickles holds more than numbers and names, or can't be read.
    """
    for folder in (checkpoint / _MODEL, checkpoint / _OPTIMIZER):
        path = folder / ".metadata"
        if not folder.is_dir():
            continue
        try:
            with path.open("rb") as file:
                metadata = _Unpickler(file).load()
            if not isinstance(metadata, Metadata):
                raise pickle.UnpicklingError("it doesn't describe shards")
            values = {
                key for key, kind in metadata.state_dict_metadata.items() if isinstance(kind, BytesStorageMetadata)
            }
            for index, stored in (metadata.storage_data or {}).items():
                if index.fqn in values:
                    path = folder / stored.relative_path
                    with path.open("rb") as file:
                        file.seek(stored.offset)
                        torch.load(io.BytesIO(file.read(stored.length)), weights_only=True)
        # A pickle that is damaged raises nearly anything.
        except Exception as error:
            raise InputError(
                f"output_dir: {path}: can't be read, or holds more than weights: {first_line(error)}; remove "
                f"{checkpoint} to go on from the one before it"
            ) from error


def load_model_shards(model: torch.nn.Module, checkpoint: Path) -> None:
    """Load the weights of a sharded run's checkpoint; of an adapter, what is trained."""
    adapter = isinstance(model, PeftModel)
    state: dict[str, Any] = {"model": get_peft_model_state_dict(model) if adapter else get_model_state_dict(model)}
    load(state, checkpoint_id=checkpoint / _MODEL)
    if adapter:
        set_peft_model_state_dict(model, state["model"])
    else:
        set_model_state_dict(model, state["model"])


def load_optimizer_shards(model: torch.nn.Module, optimizer: torch.optim.Optimizer, checkpoint: Path) -> None:
    """Load the optimizer's state of a sharded run's checkpoint."""
    state: dict[str, Any] = {"optimizer": get_optimizer_state_dict(model, optimizer)}
    load(state, checkpoint_id=checkpoint / _OPTIMIZER)
    set_optimizer_state_dict(model, optimizer, state["optimizer"])


def whole_weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Gather the weights of a sharded model on the first process; of an adapter, what is trained. Empty elsewhere."""
    options = StateDictOptions(
        full_state_dict=True, cpu_offload=True, ignore_frozen_params=isinstance(model, PeftModel)
    )
    state: dict[str, Any] = get_model_state_dict(model, options=options)
    # Between CPU processes a gathered tensor may still be on its way; a copy waits for it.
    return {name: value if type(value) is torch.Tensor else value.clone() for name, value in state.items()}
