"""Checkpoints of FSDP2 runs, read by a run of any number of processes, sharded or not.

FSDP2 saves with `torch.distributed.checkpoint`: every value under its parameter's name, whoever held it, so a run that
holds whole parameters can read them as well as one that cuts them otherwise.
"""

from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load

# The names that accelerate gives them.
_MODEL = "pytorch_model_fsdp_0"
_OPTIMIZER = "optimizer_0"


def holds_shards(checkpoint: Path) -> bool:
    """Whether a checkpoint was saved by a sharded run."""
    return (checkpoint / _MODEL).is_dir()


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
