"""What training costs as data grow: examples, length of the harmful response, cuts per triple, processes.

    python benchmarks/scaling.py --out benchmarks/results/scaling.json

`DeRTaTrainer` on triples of random tokens with the lengths of `train_throughput.py` and its organism-shaped model, one
quantity varied at a time. Settings take turns; the first epoch of each warms up. Times are medians of an epoch's CPU
seconds, ratios are to the first setting's epoch in the same turn. Tokens are those of the trees, without the padding
that there isn't. Two processes (DDP, gloo, `torchrun`) are timed by the wall clock, so that they need a machine that
does nothing else; a step has the same examples on one process and on two.
"""

import argparse
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers
from datasets import Dataset
from measuring import environment
from synthetic import REJECTED, examples, word_tokenizer
from train_throughput import LENGTH, SHAPES, Epoch, Task
from transformers import PrinterCallback

from derta import DeRTaConfig, DeRTaTrainer

SHAPE = SHAPES["organism"]
VOCABULARY = SHAPE.config["vocab_size"]
TRIPLES, BATCH = 48, 8


class Setting:
    """Training with one value of what is varied."""

    def __init__(self, folder: str, value: int, rows: list[dict[str, str | None]], **options: Any) -> None:
        task = Task(SHAPE, rows, BATCH, 1, "cpu", False, folder)
        args = DeRTaConfig(**{**task.settings(), "per_device_train_batch_size": BATCH, "max_length": LENGTH, **options})
        data = Dataset.from_list(rows)
        self.value, self.examples = value, len(rows)
        self._watch = Epoch("cpu")
        self._trainer = DeRTaTrainer(task.model(), args, data, processing_class=word_tokenizer(VOCABULARY))
        self._trainer.add_callback(self._watch)
        self._trainer.remove_callback(PrinterCallback)

    @property
    def tokens(self) -> int:
        """Tokens of the trees of an epoch; a branch adds |r| of them whatever its cut."""
        trees: Any = self._trainer.train_dataset
        return sum(len(trees[0, index]) for index in range(len(trees)))

    def epoch(self) -> tuple[float, float]:
        """Train one; returns wall and CPU seconds."""
        self._trainer.train()
        return self._watch.seconds


def number_of_examples(folder: str) -> list[Setting]:
    return [Setting(folder, count, examples(count, 0, VOCABULARY)) for count in (24, 48, 96, 192)]


def response_length(folder: str) -> list[Setting]:
    return [
        Setting(folder, mean, examples(TRIPLES, 0, VOCABULARY, rejected=(mean, REJECTED[1])))
        for mean in (60, 120, 240, 480)
    ]


def cuts_per_triple(folder: str) -> list[Setting]:
    rows = examples(TRIPLES, 0, VOCABULARY)
    return [Setting(folder, cuts, rows, cuts_per_triple=cuts) for cuts in (1, 2, 4, 8)]


PARTS: dict[str, Callable[[str], list[Setting]]] = {
    "examples": number_of_examples,
    "response": response_length,
    "cuts": cuts_per_triple,
}


def measure(part: str, repeats: int) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        settings = PARTS[part](folder)
        for setting in settings:
            setting.epoch()
        runs = [[setting.epoch()[1] for setting in settings] for _ in range(repeats)]
        return [
            {
                part: setting.value,
                "examples_per_epoch": setting.examples,
                "tokens": setting.tokens,
                "seconds": statistics.median(turn[i] for turn in runs),
                "over_first": statistics.median(turn[i] / turn[0] for turn in runs),
                "tokens_over_first": setting.tokens / settings[0].tokens,
                "runs": [turn[i] for turn in runs],
            }
            for i, setting in enumerate(settings)
        ]


def on_processes(counts: Sequence[int], repeats: int) -> list[dict[str, Any]]:
    """Time the same steps on one process and on several."""
    runs: dict[int, list[float]] = {count: [] for count in counts}
    for _ in range(repeats):
        for count in counts:
            launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={count}"]
            launched = subprocess.run([*launch, __file__, "--one-of", str(max(counts))], capture_output=True, text=True)
            if launched.returncode:
                sys.exit(launched.stderr)
            runs[count].append(json.loads(launched.stdout.splitlines()[-1])["wall_seconds"])
    rate = {count: 4 * TRIPLES / statistics.median(times) for count, times in runs.items()}
    return [
        {
            "processes": count,
            "examples_per_second": rate[count],
            "efficiency": rate[count] / count / rate[counts[0]],
            "runs": runs[count],
        }
        for count in counts
    ]


def one_process(of: int) -> None:
    """Train as one of the processes that `torchrun` started; the first prints the time of an epoch."""
    with tempfile.TemporaryDirectory() as folder:
        accumulation = of // int(os.environ["WORLD_SIZE"])
        rows = examples(4 * TRIPLES, 0, VOCABULARY)
        setting = Setting(folder, 0, rows, gradient_accumulation_steps=accumulation)
        setting.epoch()
        wall, _ = setting.epoch()
    if os.environ["RANK"] == "0":
        print(json.dumps({"wall_seconds": wall}))


def show(part: str, rows: Sequence[dict[str, Any]]) -> None:
    print(f"\n{part:>10}{'tokens':>9}{'seconds':>9}{'ms/token':>10}{'time':>8}{'tokens':>8}")
    for row in rows:
        print(
            f"{row[part]:10}{row['tokens']:9}{row['seconds']:9.2f}{1000 * row['seconds'] / row['tokens']:10.3f}"
            f"{row['over_first']:6.2f} x{row['tokens_over_first']:6.2f} x",
            flush=True,
        )


def show_processes(rows: Sequence[dict[str, Any]]) -> None:
    print(f"\n{'processes':>10}{'examples/s':>12}{'efficiency':>12}")
    for row in rows:
        print(f"{row['processes']:10}{row['examples_per_second']:12.2f}{row['efficiency']:12.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=[*PARTS, "processes"], default=[*PARTS, "processes"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--one-of", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help="raw JSON; its other parts are kept")
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    if options.one_of:
        one_process(options.one_of)
        return
    result: dict[str, Any] = json.loads(options.out.read_text()) if options.out and options.out.exists() else {}
    result["environment"] = environment("cpu")
    result["settings"] = {"batch": BATCH, "repeats": options.repeats}
    for part in options.parts:
        if part == "processes":
            result[part] = on_processes(options.processes, options.repeats)
            show_processes(result[part])
        else:
            result[part] = measure(part, options.repeats)
            show(part, result[part])
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
