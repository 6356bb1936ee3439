"""Training throughput and peak memory: derta against padded pairs of rows and against TRL's `SFTTrainer` with packing.

    python benchmarks/train_throughput.py --out benchmarks/results/train_throughput.json

Each side trains the same random model on the same examples, an epoch at a time, with as many optimizer steps:

- padded: as the DeRTa release, two rows per triple (prompt, r̂ up to the cut, r; and prompt, r̂ with a refusal token to
  predict at every position), one row per helpful example, padded to the longest row of the micro-batch, with float32
  logits of every position. `transformers.Trainer` and the model's own loss.
- trl: the same rows, tokenised beforehand, in `trl.SFTTrainer` with `packing=True` (best-fit decreasing, 1,024 tokens).
  Its packs span the epoch, while the two others pack or pad within a micro-batch. It trains one pack at a time, as
  plain attention over several packs in one row, which is how it batches them, costs more.
- derta: `DeRTaTrainer`, which packs trees into rows of `--row-length` tokens (1,024 by default).
- derta-2: the same with two cuts per triple, on safety data only: what a second branch costs.

All use PyTorch's SDPA attention, AdamW, one precision, the same micro-batch in examples, no activation checkpointing,
and no worker processes. Cuts of the first two are drawn once; derta draws its own each epoch. Tokens are random ids;
lengths are those of the paper's data: prompt 25, r̂ 180, r 60, helpful 350 tokens on average, log-normal, at most 1,024
together; `safety` holds triples only, `mixture` ten helpful examples per triple.

Sides take turns in one process; the first epoch of each warms up and isn't counted. The time of an epoch is from the
first batch to the last optimizer step. On a CPU it is the CPU time of the process: on one thread, that is wall time
on a machine of one's own. Peak memory is what an epoch takes beyond what the process held; on a CPU,
where a process keeps memory for later epochs, it is a lower bound and comparable for no two sides. On a GPU the models
are 1 B parameters trained in full and 8 B with LoRA, and FLOPs are set against the measured peak of a matrix
multiplication: 2 per weight and token in each of the forward pass, the gradient of the activations and, in full
training, that of the weights; the output head counts at targets only, attention scores and padding never. No GPU was
at hand when this script was written: that part is untested.
"""

import argparse
import gc
import json
import logging
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers
import trl
from datasets import Dataset
from measuring import PeakMemory, Stopwatch, environment
from peft import LoraConfig, get_peft_model
from synthetic import examples, word_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM, PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from trl import SFTConfig, SFTTrainer

from derta import DeRTaConfig, DeRTaTrainer
from derta.data.encoding import EncodedExample, Encoder
from derta.data.triples import as_example

LENGTH = 1024


@dataclass(frozen=True)
class Shape:
    """A model, and how many examples of each kind of data make an epoch on it."""

    config: dict[str, Any]
    examples: dict[str, int]
    lora: bool = False


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
    "1b": Shape(
        {
            "vocab_size": 128256,
            "hidden_size": 2048,
            "intermediate_size": 8192,
            "num_hidden_layers": 16,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "tie_word_embeddings": True,
        },
        {"safety": 256, "mixture": 176},
    ),
    "8b-lora": Shape(
        {
            "vocab_size": 128256,
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
        },
        {"safety": 128, "mixture": 88},
        lora=True,
    ),
}


@dataclass(frozen=True)
class Task:
    """What every side trains: a model, examples, and how they are batched."""

    shape: Shape
    rows: list[dict[str, str | None]]
    batch: int
    accumulation: int
    row_length: int | None
    device: str
    folder: str

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
            "bf16": self.device != "cpu",
            "activation_checkpointing": False,
            "save_strategy": "no",
            "report_to": "none",
            "logging_strategy": "epoch",
            "disable_tqdm": True,
        }

    def model(self) -> Any:
        """Return a random model, the same at every call."""
        torch.manual_seed(0)
        dtype = torch.bfloat16 if self.shape.lora else torch.float32
        config = LlamaConfig(
            **self.shape.config,
            max_position_embeddings=LENGTH,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=2,
            attn_implementation="sdpa",
        )
        with torch.device(self.device):
            model = LlamaForCausalLM(config).to(dtype)
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
        per_device_train_batch_size=task.batch,
        gradient_accumulation_steps=task.accumulation,
        remove_unused_columns=False,
    )
    data = Dataset.from_list([{"rows": rows} for rows in separate_rows(task, tokenizer)])
    return Trainer(task.model(), args, data_collator=collate, train_dataset=data)


def packed_by_trl(task: Task, tokenizer: Any) -> Trainer:
    data = Dataset.from_list([row for rows in separate_rows(task, tokenizer) for row in rows])

    def make(accumulation: int) -> SFTTrainer:
        args = SFTConfig(
            **task.settings(),
            max_length=LENGTH,
            packing=True,
            per_device_train_batch_size=1,
            gradient_accumulation_steps=accumulation,
        )
        return SFTTrainer(task.model(), args, train_dataset=data, processing_class=tokenizer)

    packs = len(make(1).train_dataset)
    return make(-(-packs // task.steps))


def derta(task: Task, tokenizer: Any, cuts: int = 1) -> Trainer:
    args = DeRTaConfig(
        **task.settings(),
        per_device_train_batch_size=task.batch,
        gradient_accumulation_steps=task.accumulation,
        max_length=LENGTH,
        row_length=task.row_length,
        cuts_per_triple=cuts,
    )
    return DeRTaTrainer(task.model(), args, Dataset.from_list(task.rows), processing_class=tokenizer)


SIDES: dict[str, Callable[[Task, Any], Trainer]] = {
    "padded": padded,
    "trl": packed_by_trl,
    "derta": derta,
    "derta-2": lambda task, tokenizer: derta(task, tokenizer, cuts=2),
}


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


def measure(task: Task, tokenizer: Any, names: Sequence[str], repeats: int) -> dict[str, list[dict[str, float]]]:
    sides = {}
    for name in names:
        watch = Epoch(task.device)
        trainer = SIDES[name](task, tokenizer)
        trainer.add_callback(watch)
        trainer.remove_callback(PrinterCallback)
        sides[name] = (trainer, watch)
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for repeat in range(repeats + 1):
        for name, (trainer, watch) in sides.items():
            trainer.train()
            assert abs(trainer.state.global_step - task.steps) <= 1, (name, trainer.state.global_step, task.steps)
            if repeat:
                wall, cpu = watch.seconds
                runs[name].append({"wall_seconds": wall, "cpu_seconds": cpu, "peak_bytes": watch.peak})
    return runs


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


def matmul_peak(size: int = 8192, repeats: int = 20) -> float:
    """FLOP/s of a bfloat16 matrix multiplication on the GPU."""
    a, b = (torch.randn(size, size, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    a @ b
    watch = Stopwatch("cuda")
    for _ in range(repeats):
        a @ b
    return repeats * 2 * size**3 / watch.read()[0]


def branch_bound(task: Task, tokenizer: Any) -> float:
    """|r| / (|q| + |r̂| + |r|): the tokens that a second branch adds."""
    encoder = Encoder(tokenizer, LENGTH)
    encoded = [encoder(as_example(row, "benchmark")) for row in task.rows]
    branches = sum(len(one.chosen) for one in encoded)
    return branches / sum(len(one.prompt) + len(one.rejected) + len(one.chosen) for one in encoded)


def report(runs: dict[str, list[dict[str, float]]], task: Task, seconds: str) -> dict[str, Any]:
    """Medians, and ratios of runs that were neighbours in time."""
    names = [name for name in runs if name != "derta"]
    return {
        "examples_per_second": {
            name: len(task.rows) / statistics.median(run[seconds] for run in done) for name, done in runs.items()
        },
        "peak_bytes": {name: statistics.median(run["peak_bytes"] for run in done) for name, done in runs.items()},
        "derta_over": {
            name: statistics.median(a[seconds] / b[seconds] for a, b in zip(runs[name], runs["derta"], strict=True))
            for name in names
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--models", nargs="+", choices=SHAPES)
    parser.add_argument("--data", nargs="+", choices=("safety", "mixture"), default=["safety", "mixture"])
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES), help="derta is always one")
    parser.add_argument("--batch", type=int, default=8, help="examples of a micro-batch")
    parser.add_argument("--accumulation", type=int, default=2)
    parser.add_argument("--row-length", type=int, help="tokens of a packed row of derta (default: derta's own choice)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    logging.disable(logging.WARNING)
    models = options.models or (["organism", "15m"] if options.device == "cpu" else ["1b", "8b-lora"])
    seconds = "cpu_seconds" if options.device == "cpu" else "wall_seconds"
    peak = None if options.device == "cpu" else matmul_peak()

    rows = []
    print(f"{'model':10}{'data':9}{'side':9}{'examples/s':>11}{'peak MB':>9}{'derta over':>11}", flush=True)
    for model in models:
        shape = SHAPES[model]
        tokenizer = word_tokenizer(shape.config["vocab_size"])
        for data in options.data:
            count = shape.examples[data]
            triples = count if data == "safety" else count // 11
            texts = examples(triples, count - triples, shape.config["vocab_size"])
            with tempfile.TemporaryDirectory() as folder:
                task = Task(
                    shape, texts, options.batch, options.accumulation, options.row_length, options.device, folder
                )
                names = ["padded", "trl", "derta", *(["derta-2"] if data == "safety" else [])]
                names = [name for name in names if name == "derta" or name in options.sides]
                runs = measure(task, tokenizer, names, options.repeats)
            row: dict[str, Any] = {"model": model, "data": data, "examples": count, **report(runs, task, seconds)}
            for name in names:
                over = f"{row['derta_over'][name]:9.2f} x" if name != "derta" else ""
                print(
                    f"{model:10}{data:9}{name:9}{row['examples_per_second'][name]:11.2f}"
                    f"{row['peak_bytes'][name] / 1e6:9.0f}{over:>11}",
                    flush=True,
                )
            if "derta-2" in names:
                row["second_branch"] = {
                    "cost": row["derta_over"]["derta-2"] - 1,
                    "tokens": branch_bound(task, tokenizer),
                }
                print(
                    "second branch: {cost:.3f} of the time, {tokens:.3f} of the tokens".format(**row["second_branch"])
                )
            if peak:
                flops = training_flops(task, tokenizer) / count
                row["model_flops_utilisation"] = {
                    name: rate * flops / peak for name, rate in row["examples_per_second"].items() if name != "derta-2"
                }
                print("MFU:", {name: round(share, 3) for name, share in row["model_flops_utilisation"].items()})
            rows.append({**row, "runs": runs})
    if options.out:
        result = {
            "environment": environment(options.device, trl=trl.__version__),
            "settings": {
                "batch": options.batch,
                "accumulation": options.accumulation,
                "row_length": options.row_length,
                "seconds": seconds,
            },
            "matmul_peak": peak,
            "rows": rows,
        }
        options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
