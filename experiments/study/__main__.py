"""`python -m experiments.study`: worlds × variants × seeds of the organism, from a file to a page of results."""

import math
import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from derta.commands.flags import OneLineParser
from derta.errors import InputError
from derta.names import model_path, world_name
from derta.terminal import clock, screen
from experiments.command_line import run_command

if TYPE_CHECKING:
    from experiments.study.cells import Failure
    from experiments.study.plan import Study


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what `run` reads."""
    parser.description = (
        "Train, attack and compare every variant of a study in every world with every seed. What is finished in --out "
        "is kept: the same command goes on. --page writes the page from the rows that there are, and trains nothing."
    )
    parser.add_argument("file", type=Path, help="the study: see docs/lab/studies.md")
    parser.add_argument("--out", type=Path, default=Path("runs/study"), help="directory of the runs")
    parser.add_argument("--rows", type=Path, metavar="FILE", help="CSV of every number (default: rows.csv in --out)")
    parser.add_argument("--page", type=Path, metavar="FILE", help="write the page, from --rows, and stop")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="cells at a time, a thread each")
    parser.add_argument("--dry-run", action="store_true", help="list the cells and which are done, and stop")


def run(args: Namespace) -> int:
    """Run a study's cells and write their numbers, or write the page from numbers that there are.

    Returns:
        0, or 1 if a cell failed, or a claim doesn't hold or couldn't be checked.

    Raises:
        InputError: The study, an option or a file is wrong.
    """
    from derta.evaluation.config import require_inspect
    from derta.files import check_apart, sole_writer
    from experiments.study import collect, load_study, run_study
    from experiments.study.numbers import Numbers, load_numbers, save_numbers
    from experiments.study.page import claims_table, write_page
    from experiments.study.verdicts import check_claims

    study = load_study(args.file)
    rows = args.rows or args.out / "rows.csv"
    if args.page is not None:
        check_apart(args.page, [rows, args.file], "page")
    if args.jobs < 1:
        raise InputError(f"--jobs: {args.jobs}: at least 1")
    if args.page is None:
        require_inspect()
        check_variants(study)
    if args.dry_run:
        _list_cells(study, args.out)
        return 0
    if args.page is None:
        if args.rows is not None:
            check_rows(study, args.rows, args.out)
        check_bases(study, args.out)
        with sole_writer(args.out):
            failed = run_study(study, args.out, args.jobs, _tell)
        save_numbers(rows, collect(study, args.out))
        screen.say(f"wrote {rows}")
        if failed:
            print(f"derta: {failed} cells failed; the same command tries them again", file=sys.stderr)
            return 1
    numbers = load_numbers(rows, study)
    verdicts = check_claims(study, numbers)
    if args.page is not None:
        write_page(study, Numbers.of(numbers), verdicts, args.page)
        screen.say(f"wrote {args.page}")
    if verdicts:
        screen.console().print(claims_table(verdicts))
    return int(not all(verdict.met for verdict in verdicts))


def check_variants(study: "Study") -> None:
    """Read every variant's options as its commands will: a study takes hours until the last one's turn.

    Raises:
        InputError: A recipe, a baseline or an option is wrong; the message names the variant.
    """
    from derta.commands import eval as evaluation
    from derta.training.config import DeRTaConfig
    from derta.training.options import parse_options
    from experiments.baselines.config import BaselineConfig
    from experiments.study.cells import commands_of

    first = {cell.variant: cell for cell in study.cells()}
    for name, cell in first.items():
        variant = study.variants[name]
        try:
            if variant.baseline and "method" in variant.train:
                raise InputError(f"method: {variant.baseline} is the method; leave it out")
            for command, *words in commands_of(study, cell):
                if command == "eval":
                    parser = OneLineParser(prog="derta eval")
                    evaluation.add_arguments(parser)
                    judges = evaluation.parse_options(parser.parse_args(words)).judges
                    if len(judges) > 1:
                        raise InputError("`judge`: a study counts the verdicts of one judge; leave one out")
                else:
                    parse_options(words, BaselineConfig if variant.baseline else DeRTaConfig)
        except InputError as error:
            raise InputError(f"{study.path}: variants.{name}: {error}") from error


def check_bases(study: "Study", out: Path) -> None:
    """Stop before the first cell if a world that is needed has no base.

    Raises:
        InputError: The message says how to make it.
    """
    from experiments.study.cells import is_done

    for world in dict.fromkeys(cell.world for cell in study.cells() if not is_done(study, cell, out)):
        model_path(world_name(world))


def check_rows(study: "Study", rows: Path, out: Path) -> None:
    """Stop before the first cell if a file holds numbers that would be lost: of cells that `out` doesn't have.

    Raises:
        InputError: It does, or it can't be read as a study's numbers.
    """
    from experiments.study.cells import is_done
    from experiments.study.numbers import load_numbers

    if not rows.exists():
        return
    held = {number.cell for number in load_numbers(rows, study)}
    if lost := [cell for cell in held if not is_done(study, cell, out)]:
        raise InputError(
            f"`rows`: {rows}: holds {len(lost)} cells that {out} doesn't, such as {min(lost).directory}; name another "
            "file, or `page` to write the page from this one"
        )


def _list_cells(study: "Study", out: Path) -> None:
    from experiments.study.cells import read_cell

    cells = list(study.cells())
    done = {cell: document for cell in cells if (document := read_cell(study, cell, out)) is not None}
    took = {cell: seconds for cell, document in done.items() if (seconds := _seconds(document))}
    for cell in cells:
        within = f" in {clock(took[cell])}" if cell in took else ""
        print(f"{cell.directory}: {f'done{within}' if cell in done else 'to do'}")
    summed = f", in {clock(sum(took.values()))} one after another" if done and len(took) == len(done) else ""
    print(f"{len(cells)} cells, {len(done)} of them done{summed}")


def _seconds(document: Mapping[str, Any]) -> float | None:
    seconds = document.get("seconds")
    return seconds if isinstance(seconds, float) and math.isfinite(seconds) else None


def _tell(failure: "Failure") -> None:
    screen.say(f"derta: failed: {failure.cell.directory}: {failure.line}", errors=True, always=True)


if __name__ == "__main__":
    sys.exit(run_command("experiments.study", add_arguments, run))
