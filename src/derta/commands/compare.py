"""`derta compare`: two evaluations side by side, with paired differences."""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from derta.data.behaviours import plain_prompt
from derta.errors import InputError
from derta.evaluation.inputs.hold_out import HoldOut
from derta.evaluation.results.compare import Comparison, compare, restrict
from derta.evaluation.results.store import load_evaluation
from derta.files import check_apart, write_json
from derta.report.terminal import comparison_table
from derta.terminal import screen


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what `run` reads."""
    parser.add_argument("first", type=Path, help="directory of an evaluation")
    parser.add_argument("second", type=Path, help="directory of another; differences are this one less the first")
    only = "compare on these behaviours alone, by their prompts: those that made no training data, say"
    parser.add_argument("--behaviours", action="append", metavar="FILE", help=only)
    parser.add_argument("--out", type=Path, help="JSON file to write the comparison to")


def run(args: Namespace) -> int:
    """Print the comparison and, with `out`, write it as JSON.

    Raises:
        InputError: a directory isn't a finished evaluation, or has none of the behaviours, or `out` can't be written.
    """
    out: Path | None = args.out
    if out is not None:
        check_apart(out, [path for side in (args.first, args.second) for path in side.glob("*.json*")], "out")
    sides = [load_evaluation(directory) for directory in (args.first, args.second)]
    if args.behaviours:
        wanted = HoldOut.load(args.behaviours).prompts
        sides = [restrict(side, wanted) for side in sides]
    comparison = compare(*sides)
    if args.behaviours:
        for side in sides:
            if lacking := len(wanted - {plain_prompt(each.prompt) for each in side.samples}):
                comparison.notes.append(f"{lacking} of {len(wanted)} behaviours aren't in {side.directory}")
    console = screen.console()
    console.print(comparison_table(comparison))
    if out is not None:
        try:
            write_json(out, _to_json(comparison))
        except OSError as error:
            raise InputError(f"--out: {out}: can't be written: {error.strerror or error}") from error
        console.print(f"wrote {out}", markup=False, highlight=False, soft_wrap=True)
    return 0


def _to_json(comparison: Comparison) -> dict[str, Any]:
    sides = (comparison.first, comparison.second)
    return {
        "directories": [str(side.directory) for side in sides],
        "rows": [[row.to_json() for row in side.rows] for side in sides],
        "differences": {judge: [each.to_json() for each in found] for judge, found in comparison.differences.items()},
        "notes": comparison.notes,
    }
