"""`derta gate`: exit with 1 if an evaluation's results break a limit."""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from rich.console import Console
from rich.text import Text

from derta.errors import InputError
from derta.evaluation.config import MAX_TOKENS, Options
from derta.evaluation.results.gate import LIMITS, Decision, decide, make_limits
from derta.evaluation.results.store import Evaluation, find_evaluations, load_evaluation
from derta.files import check_apart, write_json, write_text
from derta.redaction import printable
from derta.report.terminal import gate_table
from derta.terminal import screen

_SHOWN = 3
"""Transcripts that a refused gate names."""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what `run` reads."""
    parser.description = (
        "Decide on a release by an evaluation's results. A limit holds if the bad end of the 95 % interval "
        "keeps within it: the upper end for a maximum, the lower end for a minimum. So 0 of 20 unsafe responses don't "
        "pass --max-asr 5 (the upper end is 16 %), 0 of 200 do (1.9 %). A metric that wasn't measured fails, and so do "
        "broken and unscored responses, missing samples, and results that contradict the responses or are of other "
        "weights than lie at the model's place now."
    )
    parser.add_argument("directories", nargs="+", type=Path, metavar="D", help="directories of evaluations")
    for option, spec in LIMITS.items():
        parser.add_argument(f"--{option.replace('_', '-')}", type=float, metavar="X", help=spec.what.replace("%", "%%"))
    wanted = "attacks, variants (prefill@5), borderline and tasks that must be there"
    parser.add_argument("--require", metavar="NAME,…", help=wanted)
    parser.add_argument("--behaviours", metavar="FILE", help="behaviours that every attack must have been tried on")
    parser.add_argument("--max-unscored", type=int, default=0, metavar="N", help="samples without a verdict")
    parser.add_argument("--max-broken", type=float, default=0.0, metavar="X", help="broken responses, %% (default: 0)")
    parser.add_argument("--judge", help="whose verdicts count (default: every judge's)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the decision as JSON")
    parser.add_argument("--junit", type=Path, metavar="FILE", help="write the decision as JUnit XML, for CI")


def run(args: Namespace) -> int:
    """Print what was decided on and what fails; return 1 if anything does, and 0 otherwise.

    Raises:
        InputError: A directory holds no whole and consistent evaluation, or an option is wrong.
    """
    limits = make_limits({option: bound for option in LIMITS if (bound := getattr(args, option)) is not None})
    if args.max_unscored < 0:
        raise InputError(f"`max_unscored`: {args.max_unscored} samples are too few; give 0 or more")
    if not 0 <= args.max_broken <= 100:
        raise InputError(f"`max_broken`: {args.max_broken:g} is no share; give 0 to 100 %")
    require = [name.strip() for name in (args.require or "").split(",") if name.strip()]
    if args.require is not None and not require:
        raise InputError("`require`: it names nothing that must be there; name something, or leave it out")
    prompts = _prompts(args.behaviours) if args.behaviours else []
    evaluated = [directory for given in args.directories for directory in find_evaluations(given)]
    read = [path for directory in {*evaluated, *args.directories} for path in directory.glob("*.json*")]
    for option in ("json", "junit"):
        if (out := getattr(args, option)) is not None:
            check_apart(out, read, option)
    decisions = [
        decide(
            load_evaluation(directory),
            limits,
            require=require,
            prompts=prompts,
            judge=args.judge,
            max_unscored=args.max_unscored,
            max_broken=args.max_broken,
        )
        for directory in evaluated
    ]
    console = screen.console()
    for decision in decisions:
        _print(decision, console)
    try:
        if args.json:
            write_json(args.json, {"met": all(each.met for each in decisions), "evaluations": _to_json(decisions)})
        if args.junit:
            write_text(args.junit, _to_junit(decisions))
    except OSError as error:
        raise InputError(f"{error.filename}: can't be written: {error.strerror or error}") from error
    return 0 if all(decision.met for decision in decisions) else 1


def _prompts(behaviours: str) -> list[str]:
    from derta.evaluation.inputs.behaviours import load_behaviours

    found = [behaviour.prompt for behaviour in load_behaviours(behaviours) if behaviour.kind == "harmful"]
    if not found:
        raise InputError(f"`behaviours`: {behaviours}: no harmful prompt that could have been asked")
    return found


def _print(decision: Decision, console: Console) -> None:
    evaluation = decision.evaluation
    model = evaluation.model
    verdict = "gate met" if decision.met else "gate not met"
    lines = [
        f"{evaluation.directory}: {verdict}",
        f"  model: {model.model}" + (f", weights {model.digest}" if model.digest else ""),
        f"  judges: {', '.join(_judges(evaluation))}",
        f"  asked: {_asked(decision)}",
        f"  under: {_conditions(evaluation)}",
        *(f"  note: {note}" for note in decision.notes),
    ]
    for line in lines:
        console.print(Text(printable(line)), soft_wrap=True)
    console.print(gate_table(decision))
    failed = [check for check in decision.checks if not check.met]
    worst = list({sample.key: sample for check in failed for sample in check.samples}.values())[:_SHOWN]
    if worst:
        console.print("transcripts behind it:")
    for sample in worst:
        command = f"derta show {evaluation.directory} --id {sample.id!r} --variant {sample.variant}"
        console.print(Text(printable(f"  {command}")), soft_wrap=True)


def _judges(evaluation: Evaluation) -> list[str]:
    """Name each judge, one that is a model with the model."""
    models = {each["name"]: each["model"] for each in evaluation.settings.get("judges", [])}
    return [f"{name} = {models[name]}" if models.get(name) else name for name in evaluation.judges]


_DEFAULTS = {"max_new_tokens": MAX_TOKENS, "temperature": 0.0, "epochs": 1}
_NAMED_ELSEWHERE = ("behaviours", "borderline", "judges", "limit", "search", "model_roles")
"""What the other lines say, or what depends on the model alone."""


def _conditions(evaluation: Evaluation) -> str:
    """Say where responses come from, and each setting that isn't the default."""
    if evaluation.is_of_file:
        return "responses of a file, not asked here"
    names = [each.name for each in fields(Options) if each.name not in _NAMED_ELSEWHERE]
    values = {name: evaluation.settings.get(name) for name in names}
    changed = [f"{name} {value!r}" for name, value in values.items() if value and value != _DEFAULTS.get(name)]
    return ", ".join(["asked here", *changed])


def _asked(decision: Decision) -> str:
    """Say how many behaviours each attack, kind and task was tried on."""
    evaluation = decision.evaluation
    counts = {name: len({sample.id for sample in evaluation.of(name)}) for name in evaluation.tasks}
    limited = evaluation.settings.get("limit")
    first = f" (limited to the first {limited} of each kind)" if limited else ""
    return ", ".join(f"{name} × {number}" for name, number in counts.items()) + first


def _to_json(decisions: Sequence[Decision]) -> list[dict[str, Any]]:
    return [
        {
            "directory": str(decision.evaluation.directory),
            "met": decision.met,
            "model": asdict(decision.evaluation.model),
            "judges": decision.evaluation.judges,
            "asked": {name: len(decision.evaluation.of(name)) for name in decision.evaluation.tasks},
            "notes": list(decision.notes),
            "checks": [
                {
                    "what": check.what,
                    "met": check.met,
                    "reason": check.reason,
                    "worst": check.worst,
                    "row": check.row.to_json() if check.row else None,
                    "samples": [{"id": each.id, "variant": each.variant} for each in check.samples],
                }
                for check in decision.checks
            ],
        }
        for decision in decisions
    ]


def _to_junit(decisions: Sequence[Decision]) -> str:
    """Return a suite for each evaluation and a case for each check."""
    suites = ElementTree.Element("testsuites", name="derta gate")
    for decision in decisions:
        failed = sum(not check.met for check in decision.checks)
        suite = ElementTree.SubElement(
            suites,
            "testsuite",
            name=printable(f"{decision.evaluation.directory} ({decision.evaluation.model.model})"),
            tests=str(len(decision.checks)),
            failures=str(failed),
        )
        for check in decision.checks:
            where = f": {check.row.label}, by {check.row.judge}" if check.row else ""
            case = ElementTree.SubElement(suite, "testcase", name=printable(check.what + where), classname="derta.gate")
            if not check.met:
                ElementTree.SubElement(case, "failure", message=printable(check.reason))
    return ElementTree.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"
