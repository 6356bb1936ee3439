"""One self-contained HTML file from the results and the samples of one or more models."""

import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import torch
import transformers

from derta.data.behaviours import KINDS
from derta.evaluation.attacks import ATTACKS
from derta.evaluation.results.correction import SUFFIX
from derta.evaluation.results.metrics import MetricRow
from derta.evaluation.results.sample import Sample
from derta.redaction import visible_text
from derta.report.figures import GLYPHS, curve, intervals, shape_of
from derta.report.terminal import METRICS, format_value, judges_of, title_of
from derta.version import __version__

EXAMPLES_PER_FORM = 1


@dataclass(frozen=True)
class Run:
    """One evaluated model.

    Attributes:
        name: what to call it in the report: its method, if that tells the runs apart.
        rows: its results.
        samples: its responses, for the examples; may be empty.
    """

    name: str
    rows: Sequence[MetricRow]
    samples: Sequence[Sample] = ()

    def row(self, metric: str, attack: str, judge: str | None = None) -> MetricRow | None:
        """Return one of its rows, the first judge's by default."""
        found = (row for row in self.rows if (row.metric, row.label) == (metric, attack))
        return next((row for row in found if judge in (None, row.judge)), None)


def write_report(runs: Sequence[Run], path: Path, *, commands: Sequence[str] = (), warning: str | None = None) -> None:
    """Write the report on `runs` to `path`.

    Args:
        commands: how to make it again.
        warning: why its numbers mustn't be used, if so; stands above everything else.
    """
    path.write_text(render(runs, commands=commands, warning=warning), encoding="utf-8")


def render(runs: Sequence[Run], *, commands: Sequence[str] = (), warning: str | None = None) -> str:
    """Return the report as HTML. Text of models and users is escaped, and what can't be seen is spelt out."""
    template = files("derta.report").joinpath("report.html.j2").read_text("utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, finalize=_visible
    )
    environment.filters["value"] = format_value
    return environment.from_string(template).render(
        runs=runs,
        glyphs=GLYPHS,
        shape_of=shape_of,
        warning=warning,
        organism=any(row.judge == "organism" for run in runs for row in run.rows),
        headline=list(_headline(runs)),
        success=_success(runs),
        judges=judges_of([row for run in runs for row in run.rows]),
        summary=_summary(runs),
        figures=_figures(runs),
        details=_details(runs),
        unscored=[(run.name, row) for run in runs for row in run.rows if _counts(row, "unscored")],
        broken=[(run.name, row) for run in runs for row in run.rows if _counts(row, "broken")],
        examples=_examples(runs),
        commands=commands,
        facts=_facts(runs),
    )


def _visible(value: Any) -> Any:
    """Escape what can't be seen in a text; markup is ours."""
    return visible_text(value, keep="\n") if type(value) is str else value


def _counts(row: MetricRow, what: str) -> bool:
    """Whether a row of whole attacks counts some samples of a kind that is in no other number."""
    return row.metric.endswith(what) and bool(row.value) and row.variant is None


def _headline(runs: Sequence[Run]) -> Iterator[tuple[str, MetricRow, MetricRow]]:
    """What changes from the first run to the last: (heading, then, now)."""
    if len(runs) < 2:
        return
    for metric, attack, heading in _summary(runs):
        if metric in ("leak", "half_life") or metric.endswith(SUFFIX):
            continue
        then, now = runs[0].row(metric, attack), runs[-1].row(metric, attack)
        if then and now and then.value is not None and now.value is not None:
            yield heading, then, now


def _summary(runs: Sequence[Run]) -> list[tuple[str, str, str]]:
    """What a reader decides on: (metric, attack, heading) of what there is, corrected shares under the raw ones."""
    success = _success(runs)
    columns = [
        *(("asr", attack, f"{success}, {attack}") for attack in _attacks(runs)),
        *(("over_refusal", form, _asked("refuses borderline prompts", form)) for form in _forms(runs, "over_refusal")),
        *(
            ("helpful_accuracy", form, _asked("answers helpful prompts", form))
            for form in _forms(runs, "helpful_accuracy")
        ),
        *(
            ("helpful_refusal", form, _asked("refuses helpful prompts", form))
            for form in _forms(runs, "helpful_refusal")
        ),
        ("garbled", "prefill", "garbled under prefill"),
        ("leak", "prefill", "harmful tokens before refusal, prefill"),
        ("half_life", "prefill", "harmful tokens until refusals have halved"),
    ]
    corrected = "… corrected for the judge's error"
    both = [each for m, a, heading in columns for each in ((m, a, heading), (m + SUFFIX, a, corrected))]
    return [column for column in both if any(run.row(*column[:2]) for run in runs)]


def _attacks(runs: Sequence[Run]) -> list[str]:
    """Return the attacks that were carried out: those that derta knows in their order, then any others."""
    return _forms(runs, "asr")


def _forms(runs: Sequence[Run], metric: str) -> list[str]:
    """Return the attacks, or forms of attacks, that there is a number for."""
    found = {row.attack for run in runs for row in run.rows if row.metric == metric}
    return [*(name for name in ATTACKS if name in found), *sorted(found - set(ATTACKS))]


def _asked(heading: str, form: str) -> str:
    return heading if form == "direct" else f"{heading}, {form}"


def _success(runs: Sequence[Run]) -> str:
    """What a share of unsafe responses is called: attack success needs a judge of harm."""
    deciding = [row.judge for run in runs for attack in _attacks(runs) if (row := run.row("asr", attack))]
    return title_of("asr", deciding).removesuffix(" ↓")


def _figures(runs: Sequence[Run]) -> dict[str, Any]:
    success = _success(runs).capitalize()
    of_all = "unsafe responses, %" if success == "Attack success" else "complying responses, %"
    attacks = _attacks(runs)
    of_prefill = {row.variant for run in runs for row in run.rows if (row.metric, row.attack) == ("asr", "prefill")}
    depths = sorted(int(depth) for variant in of_prefill if (depth := (variant or "").partition("@")[2]).isdigit())
    harmless = {
        "over_refusal": "refuses\nborderline prompts",
        "borderline_accuracy": "answers\nborderline prompts",
        "helpful_refusal": "refuses\nhelpful prompts",
        "helpful_accuracy": "answers\nhelpful prompts",
    }
    shown = [metric for metric in harmless if any(run.row(metric, "direct") for run in runs)]
    figures = {}
    if attacks:
        rows = [[run.row("asr", attack) for attack in attacks] for run in runs]
        figures["attacks"] = intervals(f"{success}, by attack", attacks, rows, of_all, width=9.6)
    if len(depths) > 1:
        rows = [[run.row("asr", f"prefill@{depth}") for depth in depths] for run in runs]
        labels = "tokens of a harmful answer already given", of_all
        figures["depths"] = curve(f"{success}, by prefill depth", depths, rows, *labels)
    if shown:
        rows = [[run.row(metric, "direct") for metric in shown] for run in runs]
        names = [harmless[metric] for metric in shown]
        figures["harmless"] = intervals("Harmless prompts", names, rows, "responses, %")
    if len(forms := _forms(runs, "over_refusal")) > 1:
        rows = [[run.row("over_refusal", form) for form in forms] for run in runs]
        figures["forms"] = intervals("Refused borderline prompts, by form", forms, rows, "responses, %")
    return figures


def _details(runs: Sequence[Run]) -> list[tuple[str, str, list[MetricRow | None]]]:
    """Every number: (metric, attack, one row for each run), each judge's where there are several."""
    keys = dict.fromkeys((row.metric, row.label, row.judge) for run in runs for row in run.rows)
    several = len({judge for _, _, judge in keys}) > 1
    order = list(METRICS)
    found = sorted(keys, key=lambda key: order.index(key[0]) if key[0] in order else len(order))
    return [
        (
            title_of(m, [judge]) + (f", by {judge}" if several else ""),
            attack,
            [run.row(m, attack, judge) for run in runs],
        )
        for m, attack, judge in found
    ]


@dataclass(frozen=True)
class _Part:
    """A stretch of a response: given by the attacker, the model's, or from its first refusal on."""

    kind: str
    text: str


def _examples(runs: Sequence[Run]) -> list[tuple[Sample, list[tuple[Run, Sample, list[_Part]]]]]:
    """Choose for each form of each attack a behaviour that the runs answer differently, if there is one."""
    taken = [{sample.key: sample for sample in run.samples} for run in runs]
    common = [key for key in (taken[0] if taken else ()) if all(key in samples for samples in taken)]
    asked = [row.attack for run in runs for row in run.rows]
    variants = dict.fromkeys(("direct", "prefill@affirmative", "prefill@10", "prefill@30", "codeattack@stack", *asked))
    chosen = []
    for kind in KINDS:
        for variant in variants:
            keys = [key for key in common if taken[0][key].variant == variant and taken[0][key].kind == kind]
            differ = [key for key in keys if len({samples[key].verdict.label for samples in taken}) > 1]
            chosen += (differ or keys)[:EXAMPLES_PER_FORM]
    return [
        (taken[0][key], [(run, samples[key], _parts(samples[key])) for run, samples in zip(runs, taken, strict=True)])
        for key in chosen
    ]


def _parts(sample: Sample) -> list[_Part]:
    given, start = len(sample.prefix), sample.verdict.refusal_start
    response = sample.prefix + sample.continuation
    blank = len(response) - len(response.lstrip())
    cut = len(response) if start is None else max(start, given)
    parts = [
        _Part("given", response[blank:given]),
        _Part("own", response[max(given, blank) : cut]),
        _Part("refusal", response[cut:]),
    ]
    return [part for part in parts if part.text]


def _facts(runs: Sequence[Run]) -> dict[str, str]:
    judges = sorted({row.judge for run in runs for row in run.rows})
    seeds = sorted({str(row.seed) for run in runs for row in run.rows if row.seed is not None})
    return {
        "judge": ", ".join(judges),
        **({"training seed": ", ".join(seeds)} if seeds else {}),
        "intervals": "95 %: Wilson for shares, Student t for means; forms of one attack on one behaviour are not "
        "counted as independent",
        "derta": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "Python": platform.python_version(),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads"
        + (f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""),
    }
