"""How cleanly refusals are sampled: every harmful behaviour asked plainly, many times, at temperature 1.

    python -m experiments.scripts.sampled_refusals --study runs/steps --variants steps-600 steps-600-start

Takes the models of a study's cells (`python -m experiments.study`, organism-steps.yaml in
runs/steps), of those worlds and seeds that all the variants have. An evaluation draws a few samples of a behaviour and
keeps one; this keeps all. Writes
`experiments/results/sampled_refusals.json` and prints shares with intervals over cells.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from derta.evaluation.results.intervals import student_t
from derta.files import write_json
from derta.generation import ChatRequest, Engine, load_model
from derta.organism import World, behaviours, judge

RESULTS = Path(__file__).parents[1] / "results" / "sampled_refusals.json"
MEASURED = ("garbled", "refuses twice", "unsafe")


def sample(model: Path, world: int, limit: int, samples: int) -> dict[str, Any]:
    """Return how many of a model's sampled answers are garbled, refuse twice or are unsafe."""
    asked = [each for each in behaviours("harmful", world=World(world))[:limit] for _ in range(samples)]
    with Engine(*load_model(str(model)), batch_size=256) as engine:
        answers = [
            engine.submit(ChatRequest(({"role": "user", "content": each.prompt},)), 96, temperature=1.0, seed=number)
            for number, each in enumerate(asked)
        ]
        texts = [answer.result().response for answer in answers]
    verdicts = [judge(each, text) for each, text in zip(asked, texts, strict=True)]
    return {
        "n": len(texts),
        "garbled": 100 * sum(verdict.garbled for verdict in verdicts) / len(texts),
        "refuses twice": 100 * sum(text.split().count("Sorry") > 1 for text in texts) / len(texts),
        "unsafe": 100 * sum(verdict.label == "unsafe" for verdict in verdicts) / len(texts),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", type=Path, default=Path("runs/steps"), help="directory of the study's cells")
    parser.add_argument("--variants", nargs="+", default=["steps-600", "steps-600-start"])
    parser.add_argument("--limit", type=int, default=40, help="behaviours")
    parser.add_argument("--samples", type=int, default=128, help="of each behaviour")
    args = parser.parse_args()
    torch.set_num_threads(1)
    found = {name: set(args.study.glob(f"world-*/{name}/seed-*/model")) for name in args.variants}
    places = {name: {(path.parts[-4], path.parts[-2]): path for path in paths} for name, paths in found.items()}
    common = sorted(set.intersection(*(set(each) for each in places.values())))
    if not common:
        sys.exit(f"{args.study}: no cell of which every variant has its model")
    cells: dict[str, list[dict[str, Any]]] = {name: [] for name in args.variants}
    for world, seed in common:
        for name in args.variants:
            number = int(world.removeprefix("world-"))
            shares = sample(places[name][world, seed], number, args.limit, args.samples)
            cells[name].append({"world": number, "seed": int(seed.removeprefix("seed-")), **shares})
    write_json(RESULTS, {"limit": args.limit, "samples": args.samples, "variants": cells})
    table = Table("variant", "cells", *MEASURED, title="answers sampled at temperature 1, %")
    for name, of_variant in cells.items():
        shown = []
        for metric in MEASURED:
            values = [cell[metric] for cell in of_variant]
            low, high = student_t(values)
            interval = "" if low is None or high is None else f" [{max(low, 0):.2f}, {high:.2f}]"
            shown.append(f"{sum(values) / len(values):.2f}{interval}")
        table.add_row(name, str(len(of_variant)), *shown)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
