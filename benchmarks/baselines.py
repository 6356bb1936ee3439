"""Baselines on the organism beside derta's own methods: one table, one seed.

    python benchmarks/baselines.py --out runs/baselines
    python benchmarks/baselines.py --out runs/door-0.5 --methods door --constants '{"alpha": 0.5}' --results door.json

Trains each with the recipe `organism` and attacks it, one after the other in this process. What is finished in `--out`
is kept: run it again after an interruption. Writes the rows of all, with the constants that were set.
"""

import argparse
import json
import sys
from pathlib import Path

from rich.console import Console

from derta.baselines import BASELINES
from derta.baselines.run import baseline_command
from derta.errors import InputError
from derta.evaluation.config import Options
from derta.evaluation.results.metrics import MetricRow
from derta.evaluation.results.store import save_results
from derta.evaluation.run import evaluate_directory
from derta.method.tree_builder import METHODS
from derta.report.terminal import results_table
from derta.training.run import train_command

RESULTS = Path(__file__).parent / "results" / "baselines.json"
ATTACKS = ("direct", "prefill", "completing", "template", "codeattack", "multi-turn")


def train_and_evaluate(
    name: str, seed: int, directory: Path, constants: str | None, limit: int | None
) -> list[MetricRow]:
    """Train a baseline or a method of derta's into `directory` and attack it there, each as far as it isn't done."""
    options = ["--config", "organism", "--seed", str(seed), "--output-dir", str(directory)]
    if name in METHODS:
        train_command([*options, "--method", name])
    else:
        baseline_command(name, [*options, *(["--constants", constants] if constants else [])])
    asked = Options(ATTACKS, limit=limit)
    return evaluate_directory(str(directory), out=directory / "evaluation", options=asked).rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    everything = [*METHODS, *BASELINES]
    parser.add_argument("--methods", nargs="+", default=everything, choices=everything)
    parser.add_argument("--constants", help="JSON of constants, for one baseline")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--limit", type=int, help="behaviours of each kind at most")
    parser.add_argument("--out", type=Path, default=Path("runs/baselines"), help="directory of the runs")
    parser.add_argument("--results", type=Path, default=RESULTS, help="JSON file to write")
    args = parser.parse_args()
    if args.constants and (len(args.methods) != 1 or args.methods[0] in METHODS):
        parser.error("--constants: they are one baseline's: name it with --methods")
    rows = []
    try:
        for name in args.methods:
            rows += train_and_evaluate(name, args.seed, args.out / name, args.constants, args.limit)
            print(f"done: {name}", flush=True)
    except InputError as error:
        print(f"baselines: error: {error}", file=sys.stderr)
        return 2
    Console().print(results_table(rows))
    args.results.parent.mkdir(parents=True, exist_ok=True)
    constants = json.loads(args.constants) if args.constants else {}
    save_results(args.results, rows, seed=args.seed, limit=args.limit, constants=constants)
    print(f"wrote {args.results}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
