"""Runs a study's cells by the command line, several at a time; what is finished is kept."""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from derta.evaluation.results.metrics import MetricRow
from derta.evaluation.results.store import load_evaluation
from derta.files import read_json, write_json
from derta.names import ORGANISM, recipe_path
from derta.strict import read_yaml
from derta.terminal import screen
from experiments.study.plan import Cell, Study

CLONE = Path(__file__).parents[2]
MODEL, EVALUATION, CELL = "model", "evaluation", "cell.json"


@dataclass(frozen=True)
class Failure:
    """A cell that couldn't be run, and its last line."""

    cell: Cell
    line: str


class CellError(RuntimeError):
    """A command of a cell failed; the message is its last line."""


class _Lifeline:
    """A pipe whose other end is this process: when it is gone, however it ended, so are the cells that it started.

    Attributes:
        inherited: Is the standard input of what must not outlive this process.
    """

    def __init__(self) -> None:
        self.inherited, self._held = os.pipe()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._held)
        os.close(self.inherited)


def run_study(study: Study, out: Path, jobs: int, on_failure: Callable[[Failure], None] = lambda _: None) -> int:
    """Train and evaluate every cell that isn't finished; return how many failed.

    Args:
        study: Says which cells there are.
        out: Gets a directory for each cell. What is in it already is finished, not begun again.
        jobs: Limits how many cells run at a time. Each takes one thread.
        on_failure: Is told of each cell that fails, at once: the others may take hours. It is called in any thread.
    """
    cells = list(study.cells())
    futures: dict[Cell, Future[None]] = {}
    failed = 0
    with ThreadPoolExecutor(jobs) as pool, _Lifeline() as lifeline, screen.bar("cells", len(cells)) as advance:
        for cell in cells:
            start = study.start_of(cell)
            # It was submitted before, so that waiting for it comes to an end.
            earlier = futures[start] if start else None
            futures[cell] = pool.submit(_run_after, earlier, study, cell, out, lifeline, on_failure, advance)
        try:
            for future in futures.values():
                if isinstance(error := future.exception(), CellError):
                    failed += 1
                elif error is not None:
                    raise error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return failed


def _run_after(
    earlier: "Future[None] | None",
    study: Study,
    cell: Cell,
    out: Path,
    lifeline: _Lifeline,
    on_failure: Callable[[Failure], None],
    advance: Callable[[int], None],
) -> None:
    try:
        if earlier is not None and earlier.exception() is not None:
            raise CellError(f"{study.variants[cell.variant].after}, which it starts from, failed")
        run_cell(study, cell, out, lifeline)
    except CellError as error:
        on_failure(Failure(cell, str(error)))
        raise
    advance(1)


def run_cell(study: Study, cell: Cell, out: Path, lifeline: _Lifeline) -> None:
    """Train and evaluate one cell in `out`, as far as it isn't done, and write its numbers to `cell.json`.

    Raises:
        CellError: A command failed.
        InputError: The variant's recipe isn't there.
    """
    directory = out / cell.directory
    if is_done(study, cell, out):
        return
    # Of the recipe as it is read now: it may be changed while the cell is at work.
    settings, began = settings_of(study, cell), time.monotonic()
    for command in commands_of(study, cell):
        try:
            # An evaluation with unscored samples ends with 1: they are counted among its numbers.
            _derta(command, out, lifeline, allowed=(0, 1) if command[0] == "eval" else (0,))
        except CellError as error:
            if not (directory / CELL).is_file():
                raise
            raise CellError(f"{error} ({directory} is of other settings than now; delete it)") from error
    evaluation = load_evaluation(directory / EVALUATION)
    for missing in evaluation.find_missing():
        raise CellError(f"planned and not measured: {missing}")
    rows = [row.to_json() for row in evaluation.rows if _is_kept(row)]
    named = {"seed": cell.seed, "world": cell.world, "variant": cell.variant}
    seconds = round(time.monotonic() - began, 1)
    write_json(directory / CELL, {"settings": settings, **named, "seconds": seconds, "rows": rows})


def is_done(study: Study, cell: Cell, out: Path) -> bool:
    """Whether a cell's numbers are there, and are those of its settings as they stand now.

    Raises:
        InputError: The variant's recipe isn't there, or `cell.json` can't be read.
    """
    return read_cell(study, cell, out) is not None


def read_cell(study: Study, cell: Cell, out: Path) -> dict[str, Any] | None:
    """Return what a finished cell's `cell.json` holds: its numbers, and the seconds of its last start until its end.

    Returns:
        `None` if the cell isn't finished, or its numbers aren't those of its settings as they stand now.

    Raises:
        InputError: The variant's recipe isn't there, or `cell.json` can't be read.
    """
    path = out / cell.directory / CELL
    if not path.is_file():
        return None
    document = read_json(path)
    return document if document.get("settings") == settings_of(study, cell) else None


def settings_of(study: Study, cell: Cell) -> str:
    """Return a digest of all that a cell is trained and attacked with, whatever its variant and its recipe are called.

    Raises:
        InputError: The variant's recipe isn't there, or can't be read.
    """
    variant, start = study.variants[cell.variant], study.start_of(cell)
    trained = {**read_yaml(_recipe(study, cell), "recipe")[0], **variant.train} if variant.trained else {}
    settings = {
        "start": settings_of(study, start) if start else cell.world,
        "method": variant.baseline,
        "train": {**_dashed(trained), "seed": cell.seed} if variant.trained else None,
        "evaluate": _dashed(variant.evaluate),
    }
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:12]


def _dashed(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name.replace("_", "-"): value for name, value in options.items()}


def _recipe(study: Study, cell: Cell) -> Path:
    return recipe_path(study.variants[cell.variant].recipe).resolve()


def _is_kept(row: MetricRow) -> bool:
    """Whether a study keeps a number: those of attacks as a whole, and how often their variants succeed."""
    return row.variant is None or row.metric == "asr"


def commands_of(study: Study, cell: Cell) -> list[list[str]]:
    """Return the commands of a cell; paths are those below the study's directory."""
    variant, start = study.variants[cell.variant], study.start_of(cell)
    base = str(start.directory / MODEL) if start else f"{ORGANISM}:{cell.world}"
    model = str(cell.directory / MODEL) if variant.trained else base
    asked = {"model": model, "behaviours": ORGANISM, "out": cell.directory / EVALUATION, **variant.evaluate}
    commands = [["eval", *_options(asked)]]
    if variant.trained:
        command = ["train", f"--method={variant.baseline}"] if variant.baseline else ["train"]
        given = {"model_name_or_path": base, "seed": cell.seed, "output_dir": model, **variant.train}
        commands.insert(0, [*command, f"--config={_recipe(study, cell)}", *_options(given)])
    return commands


def _options(given: Mapping[str, Any]) -> list[str]:
    from derta.training.options import recipe_arguments

    return recipe_arguments(_dashed(given))


def _derta(command: list[str], out: Path, lifeline: _Lifeline, allowed: tuple[int, ...]) -> None:
    """Run one command of derta in the study's directory, on one thread; it may end with `allowed` codes."""
    out.mkdir(parents=True, exist_ok=True)
    result = subprocess.run(
        [sys.executable, "-m", "experiments.study.child", *command, "--quiet"],
        cwd=out,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join((str(CLONE), *sys.path[1:]))},
        stdin=lifeline.inherited,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if result.returncode not in allowed:
        said = [line.strip() for line in (result.stderr or result.stdout).splitlines() if line.strip()]
        raise CellError(f"derta {command[0]} ended with {result.returncode}: {said[-1] if said else 'it said nothing'}")
