"""Write `docs/lab/performance.md` from the raw results of the other benchmarks.

python benchmarks/performance.py            # writes it
python benchmarks/performance.py --check    # exits with 1 if it isn't what the results say
"""

import argparse
import json
import statistics
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "lab" / "performance.md"
RESULTS = {
    "training": "train_throughput",
    "loss": "loss_memory",
    "scaling": "scaling",
    "start": "data_start",
    "generation": "generation_throughput",
    "gpu_8b": "gpu/train_8b",
    "gpu_1b": "gpu/train_1b",
    "gpu_1b_baselines": "gpu/train_1b_baselines",
    "gpu_loss": "gpu/loss_memory",
}
NAMES = {
    "organism": "organism shape, 0.9 M",
    "15m": "Llama shape, 15 M",
    "safety": "safety only",
    "mixture": "10 helpful : 1 triple",
    "full": "full logits, `cross_entropy`",
    "recomputed": "chunks, computed again in the backward pass",
    "derta": "derta: chunks, gradients in the forward pass",
    "torch": "`torch.nn.functional.linear_cross_entropy`",
    "liger": "Liger Kernel's `LigerFusedLinearCrossEntropyLoss`",
}
SIDES = {
    "padded": "padded",
    "trl": "TRL, packed",
    "derta": "derta",
    "trl-liger": "TRL, packed, Liger Kernel's layers",
    "derta-liger": "derta, Liger Kernel's layers",
}


def megabytes(count: float) -> str:
    return f"{count / 1e6:,.0f} MB"


def median(values: Iterable[float]) -> float:
    return statistics.median(values)


def page() -> str:
    environment = Environment(loader=FileSystemLoader(HERE), undefined=StrictUndefined, keep_trailing_newline=True)
    environment.filters.update(mb=megabytes, median=median)
    results: dict[str, Any] = {
        part: json.loads((HERE / "results" / f"{name}.json").read_text(encoding="utf-8"))
        for part, name in RESULTS.items()
    }
    return environment.get_template("performance.md.jinja").render(names=NAMES, sides=SIDES, **results)


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
