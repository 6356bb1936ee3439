"""How soon `derta train` begins, and what memory that takes: the first time, and with its data already kept.

    python benchmarks/data_start.py --examples 20000 100000 --out benchmarks/results/data_start.json
    python benchmarks/data_start.py --examples 1000000 --distinct 20000 --out benchmarks/results/data_start.json

Random words in the shape of the paper's mixture: ten helpful examples for each triple, and log-normal lengths with
means of 25 (prompt, with its template), 180 (harmful), 60 (safe) and 350 (helpful) tokens, up to 1,024 in all. The
tokenizer has one token for each word of three letters, as the organism's has one for each of its words. The model has
one layer: what is timed is everything around it. Each start is a process of its own, `derta train` on the same file of
JSON lines, from the beginning of the process to the end of its first optimizer step of eight examples. Memory is the
peak of its resident memory over what it has after its imports; processes that tokenise are not counted.

The second start finds its files in the system's cache; a third one has to read them from the disk.

With `--distinct` the file repeats its first examples, and the first start tokenises each of those once and writes its
tokens as often as it occurs: what is kept is what it would be, in less time, so the first start is not timed.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

STREAM, CHUNK = 1_000_000, 10_000
MEANS = {"prompt": 20, "rejected": 180, "refusal": 58, "helpful": 350}
SPREAD = 0.6


def vocabulary() -> list[str]:
    consonants = "bdfghklmnprstvz"
    return [first + vowel + last for first in consonants for vowel in "aeiou" for last in consonants]


def write_data(path: Path, examples: int, distinct: int) -> None:
    draw = np.random.default_rng(1)
    chosen = draw.choice(np.array(vocabulary()), STREAM)
    starts = np.concatenate([[0], np.cumsum([len(word) + 1 for word in chosen])]).tolist()
    stream = " ".join(chosen) + " "

    def texts(kind: str, count: int) -> list[str]:
        lengths = draw.lognormal(np.log(MEANS[kind]) - SPREAD**2 / 2, SPREAD, count).astype(int).clip(2, 1100)
        firsts = draw.integers(0, STREAM - 1100, count)
        return [
            stream[starts[first] : starts[first + length] - 1]
            for first, length in zip(firsts.tolist(), lengths.tolist(), strict=True)
        ]

    with path.open("w", encoding="utf-8") as file:
        for begin in range(0, distinct, CHUNK):
            count = min(CHUNK, distinct - begin)
            columns = zip(*(texts(kind, count) for kind in ("prompt", "refusal", "rejected", "helpful")), strict=True)
            for number, (prompt, refusal, rejected, helpful) in enumerate(columns, start=begin):
                row = {"prompt": prompt, "chosen": helpful}
                if number % 11 == 0:
                    row |= {"chosen": "Sorry , " + refusal, "rejected": rejected}
                file.write(json.dumps(row) + "\n")
    once = path.read_bytes()
    with path.open("ab") as file:
        for _ in range(1, examples // distinct):
            file.write(once)


def write_model(path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from derta.tokens.prompt_formats import PROMPT_FORMATS

    tokens = ["<s>", "</s>", "<unk>", "User:", "Assistant:", "Sorry", ",", *vocabulary()]
    core = Tokenizer(models.WordLevel({token: index for index, token in enumerate(tokens)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        **{"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "</s>"},
        chat_template=PROMPT_FORMATS["plain"],
    )
    tokenizer.save_pretrained(path)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokens), **shape)).save_pretrained(path)


def memory(name: str) -> int:
    """Bytes of this process, as Linux counts them: VmRSS, VmHWM (its peak), RssAnon or RssFile."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return 1024 * int(found[1])


def tokenise_once() -> None:
    """Let this process tokenise equal examples once."""
    from derta.data.triples import Example
    from derta.tokens.encoder import EncodedExample, Encoder

    known: dict[tuple[Any, ...], EncodedExample] = {}
    encode = Encoder.encode_batch
    tokens = ("prompt", "chosen", "chosen_after_text", "rejected", "word_ends")

    def content(example: Example) -> tuple[Any, ...]:
        return example.prompt[-1]["content"], example.chosen, example.rejected

    def encode_batch(self: Encoder, examples: list[Example], **options: Any) -> list[EncodedExample]:
        new = list({content(example): example for example in examples if content(example) not in known}.values())
        for example, encoded in zip(new, encode(self, new, **options) if new else (), strict=True):
            known[content(example)] = replace(encoded, **{name: array("i", getattr(encoded, name)) for name in tokens})
        return [replace(known[content(example)], origin=example.origin) for example in examples]

    Encoder.encode_batch = encode_batch  # type: ignore[assignment]


def start(folder: Path, processes: int, distinct: int) -> None:
    """Run `derta train` in this process and write down what it took."""
    begun = float(os.environ["BEGUN"])
    from transformers import TrainerCallback
    from transformers import trainer as transformers_trainer

    from derta.cli import main
    from derta.training import run, trainer

    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = memory("VmRSS")
    figures: dict[str, float] = {
        "import_seconds": time.time() - begun,
        "import_cpu_seconds": time.process_time(),
        "load_average": os.getloadavg()[0],
        "after_imports": before,
    }

    def timed(part: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def timed_work(*args: Any, **options: Any) -> Any:
            since, busy = time.time(), time.process_time()
            result = work(*args, **options)
            figures[f"{part}_seconds"] = time.time() - since
            figures[f"{part}_cpu_seconds"] = time.process_time() - busy
            figures[f"{part}_peak_growth"] = memory("VmHWM") - before
            return result

        return timed_work

    run.read_source = timed("read", run.read_source)
    trainer.encode_dataset = timed("encode", trainer.encode_dataset)
    if distinct:
        tokenise_once()

    class FirstStep(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: object, **__: object) -> None:
            figures["first_step_seconds"] = time.time() - begun
            figures["first_step_cpu_seconds"] = time.process_time()
            figures["peak_growth"] = memory("VmHWM") - before
            figures["anonymous"], figures["mapped_files"] = memory("RssAnon"), memory("RssFile")

    transformers_trainer.DEFAULT_CALLBACKS.append(FirstStep)
    options = {
        "model_name_or_path": folder / "model", "train_data": folder / "data.jsonl", "output_dir": folder / "out",
        "max_steps": 1, "per_device_train_batch_size": 8, "save_strategy": "no", "use_cpu": "true",
        "report_to": "none", "disable_tqdm": "true", "overwrite": "true",
    }  # fmt: skip
    if processes:
        options["dataset_num_proc"] = processes
    if main(["train", *(text for name, value in options.items() for text in (f"--{name}", str(value)))]) != 0:
        raise SystemExit("derta train failed")
    (folder / "figures.json").write_text(json.dumps(figures))


def evict(folder: Path) -> None:
    """Drop files from the system's cache, as other work would in time."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure(examples: int, distinct: int, processes: int, where: str | None) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=where) as name:
        folder = Path(name)
        write_data(folder / "data.jsonl", examples, distinct or examples)
        write_model(folder / "model")
        starts = []
        for which in ("first", "second", "from disk"):
            if which == "from disk":
                evict(folder)
            subprocess.run(
                [sys.executable, __file__, "--start", name, "--processes", str(processes), "--distinct", str(distinct)],
                check=True,
                stdout=subprocess.DEVNULL,
                env={**os.environ, "HF_DATASETS_CACHE": str(folder / "cache"), "BEGUN": str(time.time())},
            )
            starts.append(json.loads((folder / "figures.json").read_text()))
        kept = sum(file.stat().st_size for file in (folder / "cache").rglob("*") if file.is_file())
        return {
            "examples": examples,
            "distinct": distinct or examples,
            "processes": processes,
            "data_bytes": (folder / "data.jsonl").stat().st_size,
            "kept_bytes": kept,
            "tokenised_per_second": None if distinct else examples / starts[0]["encode_seconds"],
            "read_per_second": examples / starts[0]["read_seconds"],
            "read_peak_growth": starts[0]["read_peak_growth"],
            "first": None if distinct else starts[0],
            "second": starts[1],
            "from_disk": starts[2],
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, nargs="+", default=[20_000, 100_000])
    parser.add_argument("--distinct", type=int, default=0, help="examples to tokenise: a divisor of the number")
    parser.add_argument("--processes", type=int, default=2, help="that tokenise (0: threads of one process)")
    parser.add_argument("--where", default=None, help="where to put data and cache (about 7 GB for 1 M examples)")
    parser.add_argument("--out", type=Path, default=None, help="raw JSON; rows of other numbers of examples are kept")
    parser.add_argument("--start", type=Path, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.start:
        start(options.start, options.processes, options.distinct)
        return
    import datasets
    import pyarrow
    import torch
    import transformers

    heads = ("examples", "read/s", "tokenised/s", "first start", "second start", "of it CPU", "from disk", "memory")
    print(" ".join(f"{head:>12}" for head in heads))
    for examples in options.examples:
        row = measure(examples, options.distinct, 0 if options.distinct else options.processes, options.where)
        first, second = row["first"], row["second"]
        cells = [
            f"{examples:,}",
            f"{row['read_per_second']:,.0f}",
            f"{row['tokenised_per_second']:,.0f}" if first else "",
            f"{first['first_step_seconds']:.1f} s" if first else "",
            f"{second['first_step_seconds']:.1f} s",
            f"{second['first_step_cpu_seconds']:.1f} s",
            f"{row['from_disk']['first_step_seconds']:.1f} s",
            f"{second['peak_growth'] / 2**20:+,.0f} MiB",
        ]
        print(" ".join(f"{cell:>12}" for cell in cells), flush=True)
        if options.out:
            row["versions"] = {
                "python": platform.python_version(),
                "torch": torch.__version__,
                "transformers": transformers.__version__,
                "datasets": datasets.__version__,
                "pyarrow": pyarrow.__version__,
                "machine": platform.machine(),
                "cores": os.cpu_count(),
            }
            rows = json.loads(options.out.read_text())["starts"] if options.out.exists() else []
            rows = sorted([r for r in rows if r["examples"] != examples] + [row], key=lambda r: r["examples"])
            options.out.write_text(json.dumps({"starts": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
