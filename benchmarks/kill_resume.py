"""Kill a training run at random moments, run the same command again, and compare the weights with an unbroken run's.

    python benchmarks/kill_resume.py --kills 10

Each trial starts the run in a process of its own, sends it SIGKILL at a random moment (while loading, in a step, in a
save), and runs the same command again until it ends. The final weights must be the same to the bit. Prints a line
per trial and writes raw JSON.
"""

import argparse
import hashlib
import json
import os
import platform
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import torch
from forks import run_to_end, start

from derta.training.run import train_command  # imported once; trials are forks


def train(argv: Sequence[str]) -> int:
    """Train, as a command whose exit code a fork can end with."""
    train_command(argv)
    return 0


def arguments(output: Path, recipe: Path, steps: int, extra: Sequence[str]) -> list[str]:
    return [
        *("--config", str(recipe), "--output_dir", str(output), "--max_steps", str(steps)),
        *("--per_device_train_batch_size", "8", "--save_steps", "2", "--disable_tqdm", "true", *extra),
    ]


def digest(output: Path) -> str:
    weights = next(path for name in ("model", "adapter_model") if (path := output / f"{name}.safetensors").exists())
    return hashlib.sha256(weights.read_bytes()).hexdigest()


def kill(run: Callable[[], int], moment: float) -> bool:
    """Start a run and kill it after so many seconds; returns whether it was still at work."""
    process = start(run)
    time.sleep(moment)
    os.kill(process, signal.SIGKILL)
    _, status = os.waitpid(process, 0)
    return os.WIFSIGNALED(status)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    parser.add_argument("--lora", action="store_true", help="train an adapter, whose dropout draws from torch's state")
    parser.add_argument("--recipe", type=Path, default=Path(__file__).parents[1] / "recipes" / "organism.yaml")
    parser.add_argument("--out", type=Path, default=None, help="raw JSON")
    options = parser.parse_args()
    extra = ["--use_peft", "true", "--lora_r", "4"] if options.lora else []
    moments = random.Random(options.seed)

    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "whole"
        seconds = run_to_end(partial(train, arguments(whole, options.recipe, options.steps, extra)))
        expected = digest(whole)
        trials = []
        for trial in range(options.kills):
            output = Path(folder) / f"killed-{trial}"
            run = partial(train, arguments(output, options.recipe, options.steps, extra))
            moment, killed = moments.uniform(0.2, 0.98) * seconds, False
            while not killed:  # a run that was quicker than the first one has ended by then
                shutil.rmtree(output, ignore_errors=True)
                killed = kill(run, moment)
                moment *= 1 if killed else 0.8
            steps = sorted(int(path.name.split("-")[1]) for path in output.glob("checkpoint-*"))
            run_to_end(run)
            same = digest(output) == expected
            trials.append({"moment": moment, "checkpoints": steps, "same": same})
            state = f"killed at {moment:.2f} s, newest checkpoint {max(steps, default=0)}"
            print(f"{trial + 1:2}: {state}: {'same weights' if same else 'DIFFERENT WEIGHTS'}", flush=True)

    same = sum(trial["same"] for trial in trials)
    print(f"{same} of {len(trials)} killed runs end with the weights of the unbroken run, to the bit")
    if options.out:
        versions = {"python": platform.python_version(), "torch": torch.__version__, "machine": platform.machine()}
        result = {"versions": versions, "steps": options.steps, "lora": options.lora, "trials": trials}
        options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    sys.exit(0 if same == len(trials) else 1)


if __name__ == "__main__":
    main()
