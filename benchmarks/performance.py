"""Write `docs/performance.md` from the raw results of the other benchmarks.

python benchmarks/performance.py            # writes it
python benchmarks/performance.py --check    # exits with 1 if it isn't what the results say
"""

import argparse
import json
import statistics
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[1] / "docs" / "performance.md"

Json = dict[str, Any]


def read(name: str) -> Json:
    loaded: Json = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return loaded


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def megabytes(count: float) -> str:
    return f"{count / 1e6:,.0f} MB"


def machine(about: Json) -> str:
    """Versions and device of a result, whichever of the benchmarks wrote it."""
    versions = ", ".join(
        f"{name} {about[name]}" for name in ("torch", "transformers", "trl", "datasets") if name in about
    )
    device = about.get("device", "cpu")
    if device != "cpu":
        return f"{device}; {versions}."
    threads = f", {about['threads']} thread" + "s" * (about["threads"] != 1) if "threads" in about else ""
    return f"CPU ({about['machine']}, {about['cores']} cores{threads}); {versions}."


MODELS = {"organism": "organism shape, 0.9 M", "15m": "Llama shape, 15 M", "1b": "1 B, full", "8b-lora": "8 B, LoRA"}
DATA = {"safety": "safety only", "mixture": "mixture 10 : 1"}


def training() -> str:
    result = read("train_throughput")
    rows, branches = [], []
    for row in result["rows"]:
        rate, peak, over = row["examples_per_second"], row["peak_bytes"], row["derta_over"]
        names = ("padded", "trl", "derta")
        rows.append(
            [
                MODELS[row["model"]],
                DATA[row["data"]],
                *(f"{rate[name]:.2f}" for name in names),
                f"**{over['padded']:.2f} ×**",
                f"**{over['trl']:.2f} ×**",
                *(megabytes(peak[name]) for name in names),
            ]
        )
        if "second_branch" in row:
            branch = row["second_branch"]
            branches.append([MODELS[row["model"]], f"{branch['cost']:.1%}", f"{branch['tokens']:.1%}"])
    heads = ["model", "data", "padded", "TRL, packed", "derta", "over padded", "over TRL"]
    return f"""## Training

Examples a second ({result["settings"]["seconds"]} seconds, medians of {result["settings"]["repeats"]} epochs in turn, ratios of neighbours in time), and the
peak memory of a first epoch beyond what its process held. *Padded* is the form of the release: two rows per triple, padded,
with float32 logits of every position. *TRL, packed* is `SFTTrainer` with `packing=True` on the same rows, tokenised beforehand.

{table([*heads, "padded, peak", "TRL, peak", "derta, peak"], rows)}

A second safe response per triple, after a cut of its own:

{table(["model", "more time", "more tokens: r of q + r̂ + r"], branches)}

`benchmarks/train_throughput.py`; {machine(result["environment"])}"""


CANDIDATES = {
    "full": "full logits, `cross_entropy`",
    "recomputed": "chunks, recomputed in the backward pass",
    "derta": "derta: chunks, gradients in the forward pass",
    "torch": "`torch.nn.functional.linear_cross_entropy`",
    "liger": "Liger Kernel",
}


def loss() -> str:
    result = read("loss_memory")
    settings = result["settings"]
    rows = []
    for row in result["rows"]:
        runs, of_full = row["runs"], row["of_full"]
        seconds = "cpu_seconds" if settings["device"] == "cpu" else "wall_seconds"
        rows.append(
            [
                row["head"],
                CANDIDATES[row["candidate"]],
                megabytes(statistics.median(run["loss_bytes"] for run in runs)),
                f"{of_full['loss_bytes']:.3f}",
                f"{of_full['peak_bytes']:.3f}",
                f"{statistics.median(run[seconds] for run in runs):.2f}",
                f"{of_full[seconds]:.3f}",
            ]
        )
    heads = ["head", "how", "memory", "of full", "of full, with gradients", "seconds", "of full"]
    return f"""## The loss

Forward and backward of the loss alone, {settings["targets"]:,} targets, a vocabulary of {settings["vocabulary"]:,}, hidden states of {settings["hidden"]:,} values,
{settings["dtype"]}. *Memory* is what is held at most beyond the inputs and the gradients that are asked for (of a trained head
{megabytes(4 * settings["vocabulary"] * settings["hidden"])}); *with gradients* counts those too.

{table(heads, rows)}

`benchmarks/loss_memory.py`; medians of {len(result["rows"][0]["runs"])}; {machine(result["environment"])}"""


def start() -> str:
    starts = read("data_start")["starts"]
    rows = [
        [
            f"{row['examples']:,}",
            megabytes(row["data_bytes"]),
            f"{row['first']['first_step_seconds']:.1f} s" if row["first"] else "",
            f"{row['second']['first_step_seconds']:.1f} s",
            f"{row['from_disk']['first_step_seconds']:.1f} s",
            megabytes(row["second"]["peak_growth"]),
        ]
        for row in starts
    ]
    heads = ["examples", "file", "first start", "second start", "… and nothing in the system's cache", "memory growth"]
    return f"""## The first step

`derta train` from its process's beginning to the end of its first optimizer step, on a file of JSON lines with the lengths of
the paper's mixture, and the growth of its resident memory after imports. The second start finds examples and tokens kept.

{table(heads, rows)}

`benchmarks/data_start.py`; {machine(starts[-1]["versions"])}"""


def generation() -> str:
    result = read("generation_throughput")
    rows = [
        [
            work["workload"],
            f"{work['requests']}",
            f"{work['tokens_per_second']['plain']:,.0f}",
            f"{work['tokens_per_second']['ours']:,.0f}",
            f"**{work['ratio']:.1f} ×**",
        ]
        for work in result["workloads"]
    ]
    return f"""## Generation

Tokens a second in evaluation, against padded batches of 25 in `generate`; the answers are the same.

{table(["requests", "how many", "`generate`", "derta", "ratio"], rows)}

`benchmarks/generation_throughput.py`; {machine(result["versions"])}"""


def page() -> str:
    parts = [training(), loss(), scaling(), start(), generation()]
    return "\n\n".join(["# Performance", INTRODUCTION, *parts]) + "\n"


INTRODUCTION = """Written by `benchmarks/performance.py` from the raw results in `benchmarks/results/`. Every figure compares runs that took
turns on one machine; ratios carry over better than seconds do. Nothing here was measured on a GPU yet."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    text = page()
    if not options.check:
        PAGE.write_text(text, encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text:
        sys.exit(f"{PAGE.name} is not what the results say: run benchmarks/performance.py")


if __name__ == "__main__":
    main()
