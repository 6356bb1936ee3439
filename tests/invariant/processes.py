"""Runs of `derta` on several CPU processes: `python processes.py PLAN.json`, a list of `Run`s, one after another.

Each run is launched as `torchrun --standalone` does it, in forks, so that what they import was imported once.
accelerate shards over accelerators only; asked for FSDP on CPUs it trains with DDP. Here it shards over CPUs too.
Targets are projected in chunks, as those of a large vocabulary are, and ranks have other numbers of chunks.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType
from safetensors.torch import load_file
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

import derta.training.run  # noqa: F401  (imported before the forks)
from derta.cli import main
from derta.method import chunked_log_probs

RECIPE = """
model_name_or_path: organism
train_data: [organism]
max_examples: 25
max_steps: 7
learning_rate: 0.001
logging_steps: 1
save_steps: 3
use_cpu: true
report_to: none
disable_tqdm: true
rto_dropout: 0.3
"""
LORA = ["--use_peft", "true", "--lora_r", "4", "--lora_dropout", "0"]
# 25 examples and steps of 6: the last step of an epoch leaves most ranks without examples, and step 3 of 7 is in the
# middle of one.
STEP = {1: ["--per_device_train_batch_size", "2", "--gradient_accumulation_steps", "3"]}
STEP |= {count: ["--per_device_train_batch_size", str(6 // count)] for count in (2, 3)}
_CHUNK = 5 * 710


@dataclass
class Run:
    """A command, on so many processes.

    Attributes:
        processes, output, options: of the command.
        go_on: another run's directory, and the checkpoint of it to go on from.
        launch: what `accelerate launch` would have put into the environment.
    """

    processes: int
    output: str
    options: list[str]
    go_on: tuple[str, int] | None = None
    launch: dict[str, str] = field(default_factory=dict)


def prepare(run: Run) -> None:
    """Make the run's directory what a kill after the checkpoint would have left."""
    if run.go_on is None:
        return
    source, step = run.go_on
    shutil.copytree(Path(source, f"checkpoint-{step}"), Path(run.output, f"checkpoint-{step}"))
    shutil.copy(Path(source, "derta.json"), run.output)
    identity = Path(run.output, "derta.json")
    identity.write_text(json.dumps({**json.loads(identity.read_text()), "finished": False}))


def launch(run: Run) -> None:
    """Run `derta train`; raises if a process fails."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    config = LaunchConfig(
        1, 1, run.processes, rdzv_backend="c10d", rdzv_endpoint=f"localhost:{port}", start_method="fork", max_restarts=0
    )
    elastic_launch(config, _train)(run.output, run.options, run.launch)


def _train(output: str, options: list[str], launch: dict[str, str]) -> None:
    os.environ.update(launch)
    torch.set_num_threads(1)
    chunked_log_probs.CHUNK_VALUES = _CHUNK
    _shard_on_cpus()
    if main(["train", "--config", "recipe.yaml", "--output_dir", output, *options]) != 0:
        raise RuntimeError(f"{output} failed")


def _shard_on_cpus() -> None:
    plain = AcceleratorState.__init__

    def sharding(self: AcceleratorState, *args: Any, fsdp_plugin: Any = None, **kwargs: Any) -> None:
        plain(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
        if fsdp_plugin is not None and self.distributed_type == DistributedType.MULTI_CPU:
            self.distributed_type = DistributedType.FSDP
            self.fsdp_plugin = fsdp_plugin

    AcceleratorState.__init__ = sharding


def run_all(runs: Sequence[Run], folder: Path, **environment: str) -> None:
    """Do all runs in the folder, in a process of its own."""
    (folder / "recipe.yaml").write_text(RECIPE)
    (folder / "plan.json").write_text(json.dumps([asdict(run) for run in runs]))
    done = subprocess.run(
        [sys.executable, __file__, "plan.json"],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        timeout=1200,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


def steps(run: Path) -> dict[int, list[float]]:
    """Loss, gradient norm and learning rate of each step of a run."""
    history = json.loads((run / "trainer_state.json").read_text())["log_history"]
    return {log["step"]: [log[k] for k in ("loss", "grad_norm", "learning_rate")] for log in history if "loss" in log}


def weights(run: Path) -> dict[str, torch.Tensor]:
    """The weights that a run saved at its end."""
    (file,) = run.glob("*model.safetensors")
    return load_file(file)


if __name__ == "__main__":
    for fields in json.loads(Path(sys.argv[1]).read_text()):
        run = Run(**fields)
        prepare(run)
        launch(run)
