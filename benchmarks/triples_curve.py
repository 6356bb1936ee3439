"""How many triples are enough: attack success and over-refusal of the organism, tuned on 12 to 384 triples.

    python benchmarks/triples_curve.py --out runs/curve

The helpful examples stay the same (640, a tenth of them borderline) and so do the steps of training: only the number
of different triples grows. What is finished in `--out` is kept: run it again after an interruption. Writes
`benchmarks/results/triples_curve.json`, from which the table of `docs/data.md` is taken.
"""

import argparse
import json
import multiprocessing
import os
import platform
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from derta.evaluation.config import Options
from derta.evaluation.results.metrics import MetricRow, over_seeds
from derta.evaluation.run import evaluate_directory
from derta.files import write_json, write_text
from derta.names import ORGANISM, named_recipe
from derta.organism import training_data
from derta.training.run import train_command

RESULTS = Path(__file__).parent / "results" / "triples_curve.json"
TRIPLES = (12, 24, 48, 96, 192, 384)
ATTACKS = ("direct", "prefill", "completing", "template")
COLUMNS = {
    "direct": ("asr", "direct"),
    "prefill": ("asr", "prefill"),
    "completing": ("asr", "completing"),
    "template": ("asr", "template"),
    "refuses borderline": ("over_refusal", "direct"),
    "answers helpful": ("helpful_accuracy", "direct"),
}
"""The table's columns: a metric of an attack each."""


def measure(triples: int, seed: int, directory: Path, behaviours: int) -> list[MetricRow]:
    """Tune the organism on so many triples and evaluate it, each as far as it isn't done; return the numbers."""
    rows = training_data(seed=seed, triples=triples).to_list()
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / "train.jsonl"
    kept = [{name: value for name, value in row.items() if value is not None} for row in rows]
    write_text(file, "".join(json.dumps(row) + "\n" for row in kept))
    recipe = ["--config", str(named_recipe(ORGANISM)), "--train_data", str(file), "--seed", str(seed)]
    train_command([*recipe, "--method", "derta", "--output_dir", str(directory / "model")])
    asked = Options(ATTACKS, limit=behaviours)
    return evaluate_directory(str(directory / "model"), out=directory / "evaluation", options=asked).rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--triples", nargs="+", type=int, default=TRIPLES)
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--behaviours", type=int, default=120, help="of each kind")
    parser.add_argument("--out", type=Path, default=Path("runs/curve"), help="directory of the runs")
    parser.add_argument("--results", type=Path, default=RESULTS, help="JSON file to write")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs at a time")
    args = parser.parse_args()
    runs = [(triples, seed) for seed in args.seeds for triples in args.triples]
    with ProcessPoolExecutor(args.jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        places = [args.out / f"{triples}-{seed}" for triples, seed in runs]
        waiting = [pool.submit(measure, *run, place, args.behaviours) for run, place in zip(runs, places, strict=True)]
        measured: dict[int, list[MetricRow]] = {}
        for (triples, seed), future in zip(runs, waiting, strict=True):
            measured.setdefault(triples, []).extend(future.result())
            print(f"done: {triples} triples, seed {seed}", flush=True)
    report(measured, args.results, seeds=args.seeds, behaviours=args.behaviours)


def report(measured: Mapping[int, Sequence[MetricRow]], results: Path, **settings: Any) -> None:
    """Print the table and write the numbers."""
    means = {triples: over_seeds(rows) for triples, rows in measured.items()}
    Console(width=140).print(_table(means))
    points = [
        {
            "triples": triples,
            "means": dict(zip(COLUMNS, (_cell(means[triples], *where) for where in COLUMNS.values()), strict=True)),
            "rows": [row.to_json() for row in rows],
        }
        for triples, rows in measured.items()
    ]
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    results.parent.mkdir(parents=True, exist_ok=True)
    write_json(results, {**settings, **versions, "points": points})
    print(f"wrote {results}")


def _table(means: Mapping[int, Sequence[MetricRow]]) -> Table:
    table = Table("triples", *COLUMNS, title="%, means over seeds with 95 % Student t intervals", title_justify="left")
    for triples, rows in means.items():
        table.add_row(str(triples), *(_cell(rows, *where) for where in COLUMNS.values()))
    return table


def _cell(rows: Sequence[MetricRow], metric: str, attack: str) -> str:
    row = next((each for each in rows if (each.metric, each.label) == (metric, attack)), None)
    if row is None or row.value is None:
        return "not measured"
    return f"{row.value:.1f}" if row.ci_low is None else f"{row.value:.1f} [{row.ci_low:.1f}, {row.ci_high:.1f}]"


if __name__ == "__main__":
    main()
