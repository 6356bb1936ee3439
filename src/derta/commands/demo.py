"""`derta demo`: what DeRTa does, from nothing to a report, on the embedded organism."""

from argparse import ArgumentParser, Namespace
from dataclasses import dataclass
from pathlib import Path

from derta.errors import InputError
from derta.evaluation.results.store import Evaluation
from derta.names import ORGANISM, named_recipe
from derta.terminal import screen

METHODS = ("vanilla", "derta")
ATTACKS = ("direct", "prefill", "completing")
QUICK_STEPS, QUICK_BEHAVIOURS = 10, 6


@dataclass(frozen=True)
class _Size:
    """How much of the demo to run."""

    steps: int | None
    behaviours: int | None
    warning: str | None


_FULL = _Size(None, None, None)
_QUICK = _Size(
    QUICK_STEPS,
    QUICK_BEHAVIOURS,
    f"A smoke run of {QUICK_STEPS} training steps and {QUICK_BEHAVIOURS} behaviours a kind: its numbers mean nothing.",
)


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what `run` reads."""
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="directory to write to")
    parser.add_argument("--seed", type=int, default=1, help="seed of both runs")
    parser.add_argument("--quick", action="store_true", help="fewer steps and behaviours: a smoke test")
    parser.set_defaults(after_interrupt="the same command goes on where it stopped")


def run(args: Namespace) -> int:
    """Tune the organism with every method of `METHODS` from the same base, evaluate, and write table and report.

    Finished runs and samples in `out` are kept: running it again goes on where it stopped.

    Raises:
        InputError: `out` holds a demo of another seed, or can't be written to.
    """
    from derta.evaluation.config import require_inspect
    from derta.evaluation.results.store import RESULTS, save_results
    from derta.report.html import Run, write_report
    from derta.report.terminal import results_table

    require_inspect()
    out, seed, quick = args.out, args.seed, args.quick
    size = _QUICK if quick else _FULL
    console = screen.console()
    runs = []
    directories = [out / (f"{method}-quick" if quick else method) for method in METHODS]
    for number, (method, directory) in enumerate(zip(METHODS, directories, strict=True), 1):
        screen.say(f"{number} of {len(METHODS)}: {method}", style="bold")
        with screen.libraries_aside():
            found = train_and_evaluate(method, seed, directory, steps=size.steps, behaviours=size.behaviours)
        runs.append(Run(method, found.rows, found.samples))
    rows = [row for run in runs for row in run.rows]
    save_results(out / RESULTS, rows, seed=seed, warning=size.warning)
    report = out / "report.html"
    command = f"derta demo --seed {seed} --out {out}" + (" --quick" if quick else "")
    write_report(runs, report, commands=[command], warning=size.warning)
    console.print(results_table(rows, note=size.warning))
    # Plain, so that it can be pasted after file://
    print(f"report: {report.resolve()}")
    return 0


def train_and_evaluate(
    method: str, seed: int, directory: Path, *, steps: int | None = None, behaviours: int | None = None
) -> Evaluation:
    """Tune the organism into `directory` and evaluate it there, each as far as it isn't done.

    Args:
        steps: of training, defaults to the recipe's.
        behaviours: of each kind, defaults to all.

    Raises:
        InputError: the directory holds another run.
    """
    from derta.evaluation.config import Options
    from derta.evaluation.run import evaluate_directory
    from derta.run_identity import read_identity
    from derta.training.run import train_command

    found = read_identity(directory)
    if found and (found.get("method"), found.get("seed")) != (method, seed):
        whose = f"{found.get('method')} with seed {found.get('seed')}"
        raise InputError(
            f"--out: {directory} holds the run of {whose}, not of {method} with seed {seed}; choose another"
        )
    recipe = str(named_recipe(ORGANISM))
    options = ["--config", recipe, "--method", method, "--seed", str(seed), "--output_dir", str(directory)]
    train_command(options + (["--max_steps", str(steps)] if steps else []))
    asked = Options(ATTACKS, limit=behaviours)
    return evaluate_directory(str(directory), out=directory / "evaluation", options=asked)
