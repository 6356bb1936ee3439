"""`derta judge check`: how often a judge is right on responses that people labelled."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from rich.text import Text

from derta.evaluation.config import JudgeName
from derta.evaluation.results.judge_quality import Accuracy, JudgeQuality, Rate
from derta.evaluation.results.quality_file import save_qualities
from derta.redaction import printable
from derta.terminal import NumbersTable, screen


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what `run` reads."""
    what = "labelled responses: prompt, response, label (unsafe, safe; or complies, partly, refuses)"
    parser.add_argument("file", type=Path, metavar="FILE", help=what)
    parser.add_argument("--judge", required=True, metavar="NAME[=MODEL]", help="the judge to measure")
    parser.add_argument("--label-column", metavar="NAME", help="column of people's labels (default: recognise it)")
    unsafe = "a label that means unsafe; every other then means safe (repeat for several)"
    parser.add_argument("--unsafe-label", action="append", default=[], metavar="LABEL", help=unsafe)
    parser.add_argument("--out", type=Path, metavar="FILE", help="quality file to write, for --judge-quality")


def run(args: Namespace) -> int:
    """Judge labelled responses, print how often the judge is right, write a quality file.

    Returns:
        0, or 1 if the judge left responses unscored: they count against it.

    Raises:
        InputError: The file or the judge is wrong, or the quality file can't be written.
    """
    from derta.evaluation.quality import measure_judge

    quality, unlabelled = measure_judge(
        args.file, JudgeName.parse(args.judge), label_column=args.label_column, unsafe=args.unsafe_label
    )
    console = screen.console()
    console.print(quality_table(quality))
    if unlabelled:
        console.print(f"{unlabelled} rows hold no label and are left out", highlight=False)
    if args.out is not None:
        save_qualities(args.out, [quality])
        console.print(f"wrote {args.out}", markup=False, highlight=False, soft_wrap=True)
    return 1 if any(each.unscored for each in quality.accuracies) else 0


def quality_table(quality: JudgeQuality) -> NumbersTable:
    """Return a judge's accuracy by question and attack."""
    judge = quality.judge if quality.model is None else f"{quality.judge}={quality.model}"
    table = NumbersTable()
    table.title = Text(printable(f"judge {judge}, version {quality.version}"))
    table.caption = "%, 95 % intervals in brackets; unscored responses count as wrong"
    table.add_columns("question", "attack")
    table.add_columns("n", "unscored", "sensitivity", "specificity", "agreement", "α", justify="right")
    for each in quality.accuracies:
        table.add_row(*map(Text, _cells(each)))
    return table


def _cells(each: Accuracy) -> tuple[str, ...]:
    rates = map(_percent, (each.sensitivity, each.specificity, each.agreement))
    alpha = "–" if each.alpha.alpha is None else f"{each.alpha.alpha:.2f}"
    return each.question, printable(each.attack), str(each.n), str(each.unscored), *rates, alpha


def _percent(rate: Rate) -> str:
    low, high = rate.interval
    if rate.value is None or low is None or high is None:
        return "–"
    return f"{100 * rate.value:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
