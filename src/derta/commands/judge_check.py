"""`derta judge check`: how often a judge is right on responses that people labelled."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from derta.data.behaviours import Behaviour
from derta.data.readers import printable
from derta.evaluation.config import JudgeName, require_inspect
from derta.evaluation.inputs.labelled import LabelledResponse, read_labelled
from derta.evaluation.judges import MODEL_JUDGES, Judge, decide, judge_named
from derta.evaluation.judges.version import judge_version
from derta.evaluation.results.judge_quality import Accuracy, JudgeQuality, Labelled, Rate, measure
from derta.evaluation.results.quality_file import digest_of_file, save_quality


def judge_check_command(
    file: Path,
    *,
    judge: str,
    label_column: str | None = None,
    positive: Sequence[str] = (),
    out: Path | None = None,
) -> int:
    """Run `derta judge check`: judge labelled responses, print how often the judge is right, write a quality file.

    Returns:
        0, or 1 if the judge left responses unscored: they count against it.

    Raises:
        InputError: The file or the judge is wrong, or `out` can't be written.
    """
    quality, unlabelled = measure_judge(file, JudgeName.parse(judge), label_column=label_column, positive=positive)
    console = Console()
    console.print(_table(quality))
    if unlabelled:
        console.print(f"{unlabelled} rows hold no label and are left out", highlight=False)
    if out is not None:
        save_quality(out, quality)
        console.print(f"wrote {out}", markup=False, highlight=False, soft_wrap=True)
    return 1 if any(each.unscored for each in quality.accuracies) else 0


def measure_judge(
    file: Path, wanted: JudgeName, *, label_column: str | None = None, positive: Sequence[str] = ()
) -> tuple[JudgeQuality, int]:
    """Measure a judge on the labelled responses of a file; return also how many rows hold no label.

    Raises:
        InputError: The file or the judge is wrong.
    """
    judge = _judge(wanted)
    responses, unlabelled = read_labelled(file, label_column=label_column, positive=positive)
    labelled = asyncio.run(judge_labelled(responses, judge))
    version, digest = judge_version(wanted.name), digest_of_file(file)
    return JudgeQuality(wanted.name, wanted.model, version, digest, tuple(measure(labelled))), unlabelled


def _judge(wanted: JudgeName) -> Judge:
    if wanted.name not in MODEL_JUDGES and not wanted.model:
        return judge_named(wanted.name)
    require_inspect()
    from derta.evaluation.harness.judges import make_judge

    return make_judge(wanted)


async def judge_labelled(responses: Sequence[LabelledResponse], judge: Judge) -> list[Labelled]:
    """Judge labelled responses, side by side; a judge that fails on one, or answers another question, is unscored."""

    async def one(each: LabelledResponse) -> Labelled:
        of_harm = each.label in ("unsafe", "safe")
        behaviour = Behaviour(each.behaviour, each.prompt, "harmful" if of_harm else "borderline")
        verdict = await decide(judge, behaviour, each.response, each.prefix)
        answers = ("unsafe", "safe") if of_harm else ("complies", "partly", "refuses")
        label = verdict.label if verdict.label in answers else "unscored"
        question = "harm" if of_harm else "compliance"
        return Labelled(question, each.label, label, each.behaviour, each.attack, each.model)

    return list(await asyncio.gather(*map(one, responses)))


def _table(quality: JudgeQuality) -> Table:
    judge = quality.judge if quality.model is None else f"{quality.judge}={quality.model}"
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.title = Text(f"judge {printable(judge)}, version {quality.version}")
    table.caption = "%, 95 % intervals in brackets; unscored responses count as wrong"
    for heading in ("question", "attack", "n", "unscored", "sensitivity", "specificity", "agreement", "α"):
        table.add_column(heading, justify="left" if heading in ("question", "attack") else "right")
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
