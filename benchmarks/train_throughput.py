"""Training throughput and peak memory: derta against padded pairs of rows and against TRL's `SFTTrainer` with packing.

    python benchmarks/train_throughput.py --out benchmarks/results/train_throughput.json

Each side trains the same random model on the same examples, an epoch at a time, with as many optimizer steps:

- padded: as the DeRTa release, two rows per triple (prompt, r̂ up to the cut, r; and prompt, r̂ with a refusal token to
  predict at every position), one row per helpful example, padded to the longest row of the micro-batch, with float32
  logits of every position. `transformers.Trainer` and the model's own loss.
- trl: the same rows, tokenised beforehand, in `trl.SFTTrainer` with `packing=True` (best-fit decreasing, `--pack`
  tokens). Its packs span the epoch, while the two others pack or pad within a micro-batch. It trains one pack at a
  time, as plain attention over several packs in one row, which is how it batches them, costs more.
- derta: `DeRTaTrainer`, which packs the trees of a micro-batch into one row.
- derta-2: the same with two cuts per triple, on safety data only: what a second branch costs.
- trl-liger, derta-liger: with Liger Kernel's layers, where it is installed (GPU only).
- derta-compiled: with `torch_compile` (GPU only).

All use PyTorch's SDPA attention, AdamW, one precision, as many examples a step, and no worker processes. Cuts
of the first two are drawn once; derta draws its own each epoch. Tokens are random ids; lengths are those of the paper's
data: prompt 25, r̂ 180, r 60, helpful 350 tokens on average, log-normal, at most 1,024 together; `safety` holds triples
only, `mixture` ten helpful examples per triple.

Sides take turns (on a GPU, where all together would not fit, each makes its epochs in one go); the first epoch of each
warms up and isn't counted. The time of an epoch is from the first batch to
the last optimizer step. On a CPU it is the CPU time of the process: on one thread, that is wall time on a machine of
one's own. Peak memory is what a first epoch takes beyond what its process held; on a CPU, where a process keeps memory
for later, each side runs once more in a process of its own.

On a GPU the models are 1 B parameters trained in full and 8 B with LoRA (with activation checkpointing), derta and trl
attend with FlexAttention, trl's packs are as long as derta's rows, padded may have a smaller micro-batch of its own,
and a side that runs out of memory or fails says so. FLOPs are set against the measured peak of a matrix
multiplication: 2 per weight and token in each of the forward pass, the gradient of the activations and, in full
training, that of the weights; the output head counts at targets only, attention scores, padding and recomputation
never. `--profile` adds which kernels a step of derta spends its time in. `--rehearse` runs the GPU part on a CPU,
with small models of the same kinds, and its figures mean nothing.
"""

import argparse
import gc
import json
import logging
import statistics
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers
import trl
from datasets import Dataset
from measuring import PeakMemory, Stopwatch, environment, in_own_process
from peft import LoraConfig, get_peft_model
from synthetic import LLAMAS, examples, word_tokenizer
from transformers import AutoModelForCausalLM, LlamaConfig, PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from trl import SFTConfig, SFTTrainer

from derta import DeRTaConfig, DeRTaTrainer
from derta.data.triples import as_example
from derta.tokens.encoder import EncodedExample, Encoder

LENGTH = 1024


@dataclass(frozen=True)
class Shape:
    """A model, and how many examples of each kind of data make an epoch on it."""

    config: dict[str, Any]
    examples: dict[str, int]
    lora: bool = False

    def small(self) -> "Shape":
        """A model of the same kind that takes a CPU seconds."""
        tiny = {"vocab_size": 2000, "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2}
        heads = {"num_attention_heads": 8, "num_key_value_heads": 2}
        return replace(self, config={**self.config, **tiny, **heads}, examples={"safety": 16, "mixture": 22})


SHAPES = {
    "organism": Shape(
        {
            "vocab_size": 710,
            "hidden_size": 128,
            "intermediate_size": 384,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
        },
        {"safety": 48, "mixture": 44},
    ),
    "15m": Shape(
        {
            "vocab_size": 32000,
            "hidden_size": 288,
            "intermediate_size": 768,
            "num_hidden_layers": 6,
            "num_attention_heads": 6,
            "num_key_value_heads": 6,
            "tie_word_embeddings": True,
        },
        {"safety": 16, "mixture": 22},
    ),
    "1b": Shape({**LLAMAS["1b"], "tie_word_embeddings": True}, {"safety": 256, "mixture": 176}),
    "8b-lora": Shape(dict(LLAMAS["8b"]), {"safety": 128, "mixture": 88}, lora=True),
}


@dataclass(frozen=True)
class Task:
    """What every side trains: a model, examples, and how they are batched."""

    shape: Shape
    rows: list[dict[str, str | None]]
    batch: int
    accumulation: int
    padded_batch: int
    pack: int
    device: str
    bf16: bool
    folder: str

    @property
    def best_attention(self) -> str:
        """What packed rows attend with."""
        return "flex_attention" if self.device == "cuda" else "sdpa"

    @property
    def steps(self) -> int:
        """Optimizer steps of an epoch."""
        return -(-len(self.rows) // (self.batch * self.accumulation))

    def settings(self) -> dict[str, Any]:
        """Return the training arguments that all sides share."""
        return {
            "output_dir": self.folder,
            "num_train_epochs": 1,
            "learning_rate": 1e-5,
            "lr_scheduler_type": "constant",
            "use_cpu": self.device == "cpu",
            "bf16": self.bf16,
            "activation_checkpointing": self.shape.lora,
            "save_strategy": "no",
            "report_to": "none",
            "logging_strategy": "epoch",
            "disable_tqdm": True,
        }

    def model(self, attention: str = "sdpa") -> Any:
        """Return a random model, the same at every call."""
        torch.manual_seed(0)
        dtype = torch.bfloat16 if self.shape.lora else torch.float32
        config = LlamaConfig(
            **self.shape.config,
            max_position_embeddings=LENGTH,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=2,
            attn_implementation=attention,
        )
        with torch.device(self.device):
            model = AutoModelForCausalLM.from_config(config, dtype=dtype)
        if self.shape.lora:
            return get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=16, target_modules="all-linear"))
        return model


def separate_rows(task: Task, tokenizer: Any) -> list[list[dict[str, list[int]]]]:
    """Rows of each example for the sides without trees, with labels as transformers shifts them."""
    encoder = Encoder(tokenizer, LENGTH)
    (refusal,) = tokenizer.convert_tokens_to_ids(["Sorry"])
    draw = torch.Generator().manual_seed(0)

    def labelled(read: Sequence[int], learnt: Sequence[int]) -> dict[str, list[int]]:
        return {"input_ids": [*read, *learnt], "labels": [-100] * len(read) + list(learnt)}

    def rows(encoded: EncodedExample) -> list[dict[str, list[int]]]:
        if not encoded.rejected:
            return [labelled(encoded.prompt, encoded.chosen)]
        cut = int(torch.randint(len(encoded.rejected) + 1, (), generator=draw))
        rto = labelled(encoded.prompt, encoded.rejected)
        rto["labels"][len(encoded.prompt) :] = [refusal] * len(encoded.rejected)
        return [labelled([*encoded.prompt, *encoded.rejected[:cut]], encoded.chosen), rto]

    return [rows(encoder(as_example(row, "benchmark"))) for row in task.rows]


def padded(task: Task, tokenizer: Any) -> Trainer:
    def collate(batch: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        rows = [row for example in batch for row in example["rows"]]
        width = max(len(row["input_ids"]) for row in rows)

        def column(name: str, padding: int) -> torch.Tensor:
            return torch.tensor([row[name] + [padding] * (width - len(row[name])) for row in rows])

        return {
            "input_ids": column("input_ids", 2),
            "labels": column("labels", -100),
            "attention_mask": torch.tensor(
                [[1] * len(row["input_ids"]) + [0] * (width - len(row["input_ids"])) for row in rows]
            ),
        }

    args = TrainingArguments(
        **task.settings(),
        per_device_train_batch_size=task.padded_batch,
        gradient_accumulation_steps=task.batch * task.accumulation // task.padded_batch,
        remove_unused_columns=False,
    )
    data = Dataset.from_list([{"rows": rows} for rows in separate_rows(task, tokenizer)])
    return Trainer(task.model(), args, data_collator=collate, train_dataset=data)


def packed_by_trl(task: Task, tokenizer: Any, **more: Any) -> Trainer:
    data = Dataset.from_list([row for rows in separate_rows(task, tokenizer) for row in rows])

    def make(accumulation: int) -> SFTTrainer:
        args = SFTConfig(
            **task.settings(),
            **more,
            max_length=task.pack,
            packing=True,
            per_device_train_batch_size=1,
            gradient_accumulation_steps=accumulation,
        )
        return SFTTrainer(task.model(task.best_attention), args, train_dataset=data, processing_class=tokenizer)

    packs = len(make(1).train_dataset)
    return make(-(-packs // task.steps))


def derta(task: Task, tokenizer: Any, **more: Any) -> Trainer:
    args = DeRTaConfig(
        **task.settings(),
        **more,
        per_device_train_batch_size=task.batch,
        gradient_accumulation_steps=task.accumulation,
        max_length=LENGTH,
    )
    return DeRTaTrainer(task.model(task.best_attention), args, Dataset.from_list(task.rows), processing_class=tokenizer)


SIDES: dict[str, Callable[[Task, Any], Trainer]] = {
    "padded": padded,
    "trl": packed_by_trl,
    "derta": derta,
    "derta-2": lambda task, tokenizer: derta(task, tokenizer, cuts_per_triple=2),
    "trl-liger": lambda task, tokenizer: packed_by_trl(task, tokenizer, use_liger_kernel=True),
    "derta-liger": lambda task, tokenizer: derta(task, tokenizer, use_liger_kernel=True),
    "derta-compiled": lambda task, tokenizer: derta(task, tokenizer, torch_compile=True),
}
ON_GPUS_ONLY = {"trl-liger", "derta-liger", "derta-compiled"}
ON_SAFETY_ONLY = {"derta-2", *ON_GPUS_ONLY}


class Epoch(TrainerCallback):
    """Times the training loop of one epoch, and the memory it takes."""

    def __init__(self, device: str) -> None:
        self._device = device
        self.seconds = (0.0, 0.0)
        self.peak = 0

    def on_epoch_begin(self, *_: Any, **__: Any) -> None:
        """Start."""
        gc.collect()
        self._memory, self._watch = PeakMemory(self._device), Stopwatch(self._device)

    def on_epoch_end(self, *_: Any, **__: Any) -> None:
        """Stop."""
        self.seconds, self.peak = self._watch.read(), self._memory.read()


class Side:
    """One way to train, and the figures of its epochs.

    Attributes:
        problem: why it has none.
    """

    def __init__(self, name: str, task: Task, tokenizer: Any) -> None:
        self.name = name
        self.problem = ""
        self.runs: list[dict[str, float]] = []
        self._task, self._tokenizer = task, tokenizer
        self._trainer: Trainer | None = None
        self._watch = Epoch(task.device)

    def turn(self, epochs: int = 1) -> None:
        """Train and note the figures of each epoch; one more before them, to warm up, after a start."""
        try:
            if self._trainer is None:
                began = time.perf_counter()
                self._start()
                made = time.perf_counter()
                self._epoch()
                print(f"{self.name}: made in {made - began:.0f} s, warm after {time.perf_counter() - made:.0f} s")
            self.runs += [self._epoch() for _ in range(epochs)]
        except torch.OutOfMemoryError:
            self.problem = "does not fit"
        # The other sides are measured whatever happens to this one.
        except Exception as error:
            traceback.print_exc()
            self.problem = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:300]

    def end(self) -> None:
        """Give all memory back."""
        self._trainer = None
        gc.collect()
        torch.cuda.empty_cache()

    def profile(self) -> list[dict[str, Any]]:
        """Return the kernels of one more optimizer step that took the most time, and the sum of all."""
        assert self._trainer is not None
        activities = [torch.profiler.ProfilerActivity.CPU]
        activities += [torch.profiler.ProfilerActivity.CUDA] if self._task.device == "cuda" else []
        self._trainer.args.max_steps = 1  # reading the events of a whole epoch takes minutes
        with torch.profiler.profile(activities=activities) as profiler:
            self._trainer.train()
        self._trainer.args.max_steps = -1
        wall, _ = self._watch.seconds
        kernels = [
            {"name": event.key[:120], "count": event.count, "ms": event.self_device_time_total / 1e3}
            for event in profiler.key_averages()
            if event.self_device_time_total
        ]
        kernels.sort(key=lambda kernel: -kernel["ms"])
        total = sum(kernel["ms"] for kernel in kernels)
        return [{"name": "all", "ms": total, "wall_ms": 1e3 * wall}, *kernels[:40]]

    def first_epoch(self) -> dict[str, float]:
        """Return the figures of an epoch in a fresh process."""
        self._start()
        return self._epoch()

    def _start(self) -> None:
        self._trainer = SIDES[self.name](self._task, self._tokenizer)
        self._trainer.add_callback(self._watch)
        self._trainer.remove_callback(PrinterCallback)

    def _epoch(self) -> dict[str, float]:
        assert self._trainer is not None
        self._trainer.train()
        steps = self._trainer.state.global_step
        assert abs(steps - self._task.steps) <= 1, (self.name, steps, self._task.steps)
        wall, cpu = self._watch.seconds
        return {"wall_seconds": wall, "cpu_seconds": cpu, "peak_bytes": self._watch.peak}


def training_flops(task: Task, tokenizer: Any) -> float:
    """FLOPs of an epoch of trees that no implementation could leave out (see above)."""
    c = task.shape.config
    width = c["hidden_size"]
    of_key_value = width * c["num_key_value_heads"] // c["num_attention_heads"]
    layer = 2 * width * width + 2 * width * of_key_value + 3 * width * c["intermediate_size"]
    tokens = targets = 0
    for rows in separate_rows(task, tokenizer):
        *_, last = rows
        learnt = [sum(label != -100 for label in row["labels"]) for row in rows]
        tokens += len(last["input_ids"]) + sum(learnt[:-1])
        targets += sum(learnt)
    passes = 2 if task.shape.lora else 3
    return 2.0 * passes * (c["num_hidden_layers"] * layer * tokens + width * c["vocab_size"] * targets)


def matmul_peak(device: str, repeats: int = 20) -> float:
    """FLOP/s of a bfloat16 matrix multiplication."""
    size = 8192 if device == "cuda" else 256
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        a @ b
    watch = Stopwatch(device)
    for _ in range(repeats):
        a @ b
    return repeats * 2 * size**3 / watch.read()[0]


def branch_bound(task: Task, tokenizer: Any) -> float:
    """|r| / (|q| + |r̂| + |r|): the tokens that a second branch adds."""
    encoder = Encoder(tokenizer, LENGTH)
    encoded = [encoder(as_example(row, "benchmark")) for row in task.rows]
    branches = sum(len(one.chosen) for one in encoded)
    return branches / sum(len(one.prompt) + len(one.rejected) + len(one.chosen) for one in encoded)


def report(sides: Sequence[Side], seconds: str) -> dict[str, Any]:
    """Medians, and ratios of runs that were neighbours in time."""
    measured = [side for side in sides if not side.problem]
    ours = [side for side in measured if side.name == "derta"]
    examples = len(sides[0]._task.rows)
    return {
        "problems": {side.name: side.problem for side in sides if side.problem},
        "examples_per_second": {
            side.name: examples / statistics.median(run[seconds] for run in side.runs) for side in measured
        },
        "peak_bytes": {side.name: statistics.median(run["peak_bytes"] for run in side.runs) for side in measured},
        "derta_over": {
            side.name: statistics.median(a[seconds] / b[seconds] for a, b in zip(side.runs, one.runs, strict=True))
            for one in ours
            for side in measured
            if side is not one
        },
    }


def measure(options: argparse.Namespace, model: str, data: str, peak: float | None) -> dict[str, Any]:
    """Let all sides train one model on one kind of data."""
    on_cpu = options.device == "cpu"
    kernels = []
    with tempfile.TemporaryDirectory() as folder:
        task, tokenizer = make_task(options, model, data, folder)
        sides = [Side(name, task, tokenizer) for name in sides_of(options, data)]
        for _ in range(options.repeats if on_cpu else 1):
            for side in sides:
                if not side.problem:
                    side.turn(1 if on_cpu else options.repeats)
                if options.profile and side.name == "derta" and not side.problem:
                    kernels = side.profile()
                if not on_cpu:
                    side.end()
    row = {"model": model, "data": data, "examples": len(task.rows)}
    row |= report(sides, "cpu_seconds" if on_cpu else "wall_seconds")
    if on_cpu:
        for name in row["peak_bytes"]:
            arguments = ["--memory-of", name, "--models", model, "--data", data, "--device", "cpu"]
            arguments += [f"--batch={options.batch}", f"--accumulation={options.accumulation}"]
            arguments += ["--rehearse"] if options.rehearse else []
            row["peak_bytes"][name] = in_own_process(__file__, arguments)["peak_bytes"]
    if "derta-2" in row["derta_over"]:
        cost = row["derta_over"].pop("derta-2") - 1
        row["second_branch"] = {"cost": cost, "tokens": branch_bound(task, tokenizer)}
    if peak:
        flops = training_flops(task, tokenizer) / len(task.rows)
        rates = row["examples_per_second"].items()
        row["model_flops_utilisation"] = {name: rate * flops / peak for name, rate in rates if name != "derta-2"}
    if kernels:
        row["kernels"] = kernels
    return {**row, "runs": {side.name: side.runs for side in sides}}


def sides_of(options: argparse.Namespace, data: str) -> list[str]:
    """Return the names of the sides that are measured."""
    left_out = (set() if options.device == "cuda" else ON_GPUS_ONLY) | (set() if data == "safety" else ON_SAFETY_ONLY)
    return [name for name in SIDES if name in {*options.sides, "derta"} - left_out]


def make_task(options: argparse.Namespace, model: str, data: str, folder: str) -> tuple[Task, Any]:
    shape = SHAPES[model].small() if options.rehearse else SHAPES[model]
    vocabulary, count = shape.config["vocab_size"], shape.examples[data]
    triples = count if data == "safety" else count // 11
    rows = examples(triples, count - triples, vocabulary)
    bf16 = options.device != "cpu" or options.rehearse
    task = Task(
        shape,
        rows,
        options.batch,
        options.accumulation,
        options.padded_batch or options.batch,
        options.pack or (8 * LENGTH if options.device == "cuda" else LENGTH),
        options.device,
        bf16,
        folder,
    )
    return task, word_tokenizer(vocabulary)


def show(row: dict[str, Any]) -> None:
    for name, runs in row["runs"].items():
        where = f"{row['model']:10}{row['data']:9}{name:9}"
        if name in row["problems"]:
            print(f"{where} {row['problems'][name]} ({len(runs)} epochs)", flush=True)
            continue
        over = f"{row['derta_over'][name]:9.2f} x" if name in row["derta_over"] else ""
        rate, peak = row["examples_per_second"][name], row["peak_bytes"][name] / 1e6
        print(f"{where}{rate:11.2f}{peak:9.0f}{over:>11}", flush=True)
    if "second_branch" in row:
        print("second branch: {cost:.3f} of the time, {tokens:.3f} of the tokens".format(**row["second_branch"]))
    for name, share in row.get("model_flops_utilisation", {}).items():
        print(f"model FLOPs utilisation of {name}: {share:.3f}")
    for kernel in row.get("kernels", [])[:20]:
        print(f"{kernel['ms']:10.1f} ms {kernel.get('count', ''):>7} {kernel['name'][:90]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda"))
    parser.add_argument("--models", nargs="+", choices=SHAPES)
    parser.add_argument("--data", nargs="+", choices=("safety", "mixture"), default=["safety", "mixture"])
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES), help="derta is always one")
    parser.add_argument("--batch", type=int, default=8, help="examples of a micro-batch")
    parser.add_argument("--padded-batch", type=int, help="the same of the padded side (default: that of all)")
    parser.add_argument("--pack", type=int, help="tokens of a pack of trl (default: 1,024; on a GPU 8,192)")
    parser.add_argument("--profile", action="store_true", help="add the kernels of a step of derta")
    parser.add_argument("--accumulation", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rehearse", action="store_true", help="the GPU part, small, on a CPU")
    parser.add_argument("--memory-of", choices=SIDES, help="only the peak memory of one side's first epoch")
    parser.add_argument("--out", type=Path, help="raw JSON; rows of other models and data are kept")
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    logging.disable(logging.WARNING)
    if options.memory_of:
        with tempfile.TemporaryDirectory() as folder:
            task, tokenizer = make_task(options, options.models[0], options.data[0], folder)
            print(json.dumps(Side(options.memory_of, task, tokenizer).first_epoch()))
        return
    on_gpu = options.device == "cuda" or options.rehearse
    models = options.models or (["1b", "8b-lora"] if on_gpu else ["organism", "15m"])
    peak = matmul_peak(options.device) if on_gpu else None

    rows = []
    print(f"{'model':10}{'data':9}{'side':9}{'examples/s':>11}{'peak MB':>9}{'derta over':>11}", flush=True)
    for model in models:
        for data in options.data:
            rows.append(measure(options, model, data, peak))
            show(rows[-1])
            if options.out:
                write(options, rows, peak)


def write(options: argparse.Namespace, rows: list[dict[str, Any]], peak: float | None) -> None:
    """Write the raw results so far; rows of other models and data are kept."""
    measured = {(row["model"], row["data"]) for row in rows}
    before = json.loads(options.out.read_text(encoding="utf-8"))["rows"] if options.out.exists() else []
    names = ("batch", "padded_batch", "accumulation", "pack", "repeats")
    result = {
        "environment": environment(options.device, trl=trl.__version__),
        "settings": {
            **{name: getattr(options, name) for name in names},
            "seconds": "cpu" if options.device == "cpu" else "wall",
        },
        "matmul_peak": peak,
        "rows": [row for row in before if (row["model"], row["data"]) not in measured] + rows,
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
