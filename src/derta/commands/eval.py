"""`derta eval`: attack models, judge what they answer, and show it."""

import math
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from rich.console import Console
from rich.text import Text

from derta.errors import InputError, did_you_mean, first_line
from derta.evaluation.config import JudgeName, Options, require_inspect
from derta.files import folder_in, sole_writer
from derta.redaction import printable
from derta.terminal import NumbersTable, screen

if TYPE_CHECKING:
    from derta.evaluation.plan import Plan

REPORT = "report.html"


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what `run` reads."""
    add = parser.add_argument
    add(
        "--model",
        required=True,
        nargs="+",
        help="directory, adapter, hub name, 'organism', or Inspect's PROVIDER/MODEL",
    )
    add("--out", type=Path, required=True, help="directory for results, responses, logs and report")
    names = "names, separated by commas; 'all', 'combined'; a+b begins b from a (default: direct,prefill,completing)"
    add("--attacks", help=names)
    add(
        "--behaviours",
        metavar="FILE",
        help="harmful prompts: HarmBench, AdvBench, JailbreakBench, StrongREJECT, triples, text; or 'organism'",
    )
    add(
        "--borderline",
        action="append",
        default=[],
        metavar="FILE",
        help="harmless prompts that look harmful (XSTest, …)",
    )
    add("--harmless-under", metavar="NAME,…", help="ask harmless prompts in the form of these attacks as well")
    add("--task", action="append", default=[], metavar="NAME=FILE", help="gsm8k, mmlu or alpacaeval")
    add(
        "--prompts",
        metavar="FILE",
        help="disguised prompts; --behaviours FILE says, row by row, what they ask for",
    )
    add("--system", metavar="TEXT", help="the model's system prompt, or a file that holds it")
    add("--judge", metavar="NAME[=MODEL],…", help="default: organism for its behaviours, refusal for others")
    add(
        "--model-role",
        action="append",
        default=[],
        metavar="ROLE=MODEL",
        help="attacker or judge, for PAIR and AutoDAN",
    )
    add_model_arg(parser)
    add("--guard", metavar="FILE", help="calibration of derta guard calibrate: evaluate the model behind its guard")
    add("--limit", type=int, help="behaviours of each kind at most")
    add("--search-limit", type=int, help="behaviours at most for PAIR, AutoDAN and GCG (50 in the paper)")
    add("--depths", metavar="N,…", help="tokens of a harmful response that prefill begins the answer with")
    add("--templates", metavar="FILE", help="role-play templates for the template attack and AutoDAN")
    add("--demonstrations", metavar="FILE", help="questions and answers for SelfCipher")
    add("--neighbours", metavar="FILE", help="harmless questions and answers, for neighbour and two-questions")
    add("--shots", metavar="N,…", help="harmful answers that many-shot shows first (default: 4,16,64)")
    add("--search", action="append", default=[], metavar="NAME=N", help="how hard searches try, such as gcg_steps=500")
    add("--max-new-tokens", type=int, help="of an answer (default: 512; 96 for the organism)")
    add("--temperature", type=float, default=0.0, help="of the attacked model (default: greedy)")
    add("--epochs", type=int, default=1, help="how often each sample is taken")
    add("--seed", type=int, default=0, help="of everything that is drawn")
    add("--judge-quality", type=Path, metavar="FILE", help="correct for the judge's error: see derta judge check")
    add("--dry-run", action="store_true", help="show what would be asked, without loading a model, and stop")
    parser.set_defaults(after_interrupt="the same command goes on with the samples that are missing")


def add_model_arg(parser: ArgumentParser) -> None:
    """Declare the options of a model's provider, which [`model_args`] reads."""
    parser.add_argument(
        "-M",
        dest="model_arg",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="option of the provider; tokenizer=PATH and chat_template_kwargs=JSON for a server",
    )


def run(args: Namespace) -> int:
    """Evaluate every model, write results, responses and a report, print the table.

    Returns:
        0, or 1 if the numbers aren't whole: samples stayed unscored, or something that was planned isn't there.

    Raises:
        InputError: an option, a file, a model or the directory is wrong.
    """
    options = parse_options(args)
    require_inspect()
    from derta.evaluation.quality import check_corrects, find_quality
    from derta.evaluation.results.sample import report_unscored
    from derta.evaluation.results.store import RESULTS, check_no_evaluation, save_results
    from derta.evaluation.run import evaluate_plan, plan_for
    from derta.report.html import Run, write_report
    from derta.report.terminal import model_names, results_table

    console = screen.console()
    directories = _directories(args.model, args.out)
    if len(directories) > 1:
        check_no_evaluation(args.out)
    # What is wrong with the last model's plan is told before the first model runs.
    plans = {model: plan_for(model, options) for model in directories}
    worlds = {plan.options.behaviours for plan in plans.values() if plan.options.world is not None}
    if len(worlds) > 1:
        raise InputError(f"--model: {' and '.join(sorted(map(str, worlds)))} are worlds apart; evaluate each by itself")
    if args.dry_run:
        for model, plan in plans.items():
            show_plan(model, plan, console)
        return 0
    qualities = {}
    if args.judge_quality is not None:
        for model, plan in plans.items():
            qualities[model] = find_quality(args.judge_quality, plan.options.judges)
            check_corrects(args.judge_quality, qualities[model], plan.judged_kinds())
    measured = {}
    for model, directory in directories.items():
        screen.say(f"evaluating {model}", style="bold")
        with screen.libraries_aside(), sole_writer(directory):
            measured[model] = evaluate_plan(model, plans[model], out=directory, qualities=qualities.get(model, ()))
    missing = [f"{model}: {each}" for model, of_model in measured.items() for each in of_model.find_missing()]
    rows = [row for of_model in measured.values() for row in of_model.rows]
    names = {which.model: name for which, name in model_names(rows).items()}
    runs = [Run(names.get(model, model), each.rows, each.samples) for model, each in measured.items()]
    if len(runs) > 1:
        save_results(args.out / RESULTS, rows)
    write_report(runs, args.out / REPORT)
    console.print(results_table(rows))
    for written in (args.out / RESULTS, args.out / REPORT):
        console.print(f"wrote {written}", markup=False, highlight=False, soft_wrap=True)
    for line in missing:
        print(f"derta: planned and not measured: {printable(line)}", file=sys.stderr)
    return report_unscored([sample for run in runs for sample in run.samples]) or int(bool(missing))


def show_plan(model: str, plan: "Plan", console: Console) -> None:
    """Print what an evaluation will ask of a model."""
    options = plan.options
    table = NumbersTable()
    table.add_columns("asks", "variant", "judges")
    table.add_columns("samples", justify="right")
    for name, task in plan.tasks().items():
        for variant, count in task.variants.items():
            cells = (name, variant, ", ".join(task.judges), str(count * options.epochs))
            table.add_row(*(Text(printable(cell)) for cell in cells))
    begins_answers = any((spec := plan.attack(name)) and "prefill" in spec.requires for name in plan.tasks())
    lines = {
        "model": model,
        "behaviours": options.behaviours,
        "system prompt": options.system,
        "depths": plan.depths_counted_in if begins_answers else None,
        "answers": f"{options.max_new_tokens} tokens at most, temperature {options.temperature}, seed {options.seed}",
    }
    for name, value in lines.items():
        if value is not None:
            console.print(Text(printable(f"{name}: {value}")), soft_wrap=True)
    console.print(table)


def parse_options(args: Namespace) -> Options:
    """Turn the command line's words into options.

    Raises:
        InputError: a name is unknown, or a value is no number.
    """
    # They import torch, which --help can do without.
    from derta.evaluation.attacks import attack_names
    from derta.evaluation.inputs.questions import TASKS, check_task

    tasks = _pairs("--task", args.task)
    for name in tasks:
        check_task(name, TASKS)
    attacks = tuple(attack_names(args.attacks)) if args.attacks is not None else None
    forms = attack_names(args.harmless_under, of_harmless=True) if args.harmless_under is not None else ()
    if args.prompts and (attacks is None or len(attacks) != 1):
        raise InputError("--prompts: the prompts are one attack's: name it with --attacks")
    return Options(
        attacks=attacks,
        behaviours=args.behaviours,
        borderline=tuple(args.borderline),
        harmless_under=tuple(form for form in forms if form != "direct"),
        tasks=tasks,
        prompts=args.prompts,
        judges=judge_names(args.judge),
        system=_system(args.system),
        limit=args.limit,
        search_limit=args.search_limit,
        depths=_numbers("--depths", args.depths, "tokens"),
        neighbours=args.neighbours,
        shots=_numbers("--shots", args.shots, "answers"),
        templates=args.templates,
        demonstrations=args.demonstrations,
        search=_search(args.search),
        max_new_tokens=args.max_new_tokens,
        temperature=args.temperature,
        epochs=args.epochs,
        seed=args.seed,
        model_args=model_args(args.model_arg),
        model_roles=_pairs("--model-role", args.model_role),
        guard=args.guard,
    )


def _system(given: str | None) -> str | None:
    if given is None:
        return None
    try:
        is_file = Path(given).is_file()
    except OSError:  # a text may be too long for a file's name
        is_file = False
    try:
        text = Path(given).read_text("utf-8") if is_file else given
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--system: {given}: can't be read as UTF-8 text: {error}") from error
    if not text.strip():
        raise InputError("--system: the system prompt is empty; leave it out")
    return text


def model_args(given: Iterable[str]) -> dict[str, Any]:
    """Read the options of a model's provider, NAME=VALUE each.

    Raises:
        InputError: One has another form.
    """
    found = {}
    for key, value in _pairs("-M", given).items():
        try:
            found[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise InputError(f"-M {key}: {value!r} is not YAML: {first_line(error)}") from error
    return found


def _pairs(flag: str, given: Iterable[str]) -> dict[str, str]:
    pairs = {}
    for each in given:
        key, equals, value = each.partition("=")
        if not (key and equals and value):
            raise InputError(f"{flag}: {each!r}: write NAME=VALUE")
        if key in pairs:
            raise InputError(f"{flag}: {key} is given twice; leave one out")
        pairs[key] = value
    return pairs


def judge_names(given: str | None) -> tuple[JudgeName, ...]:
    """Read NAME or NAME=MODEL, several with commas.

    Raises:
        InputError: There is no such judge.
    """
    from derta.evaluation.judges import find_judge

    judges = tuple(JudgeName.parse(each) for each in (given or "").split(",") if each.strip())
    for judge in judges:
        find_judge(judge.name)
    return judges


def _numbers(flag: str, given: str | None, what: str) -> tuple[int, ...] | None:
    if given is None:
        return None
    try:
        numbers = tuple(int(each) for each in given.split(","))
    except ValueError as error:
        raise InputError(f"{flag}: {given!r}: write numbers of {what} with commas, such as 5,20,100") from error
    if len(set(numbers)) < len(numbers):
        raise InputError(f"{flag}: {given!r}: a number stands twice; leave one out")
    if min(numbers) < 1:
        raise InputError(f"{flag}: {given!r}: numbers of {what} are 1 or more")
    return numbers


def _search(given: Iterable[str]) -> dict[str, Any]:
    from derta.evaluation.attacks import Search

    types = {name: type(default) for name, default in vars(Search()).items()}
    chosen = {}
    for name, value in _pairs("--search", given).items():
        if name not in types:
            raise InputError(
                f"--search: unknown setting {name!r}{did_you_mean(name, types)}; there are {', '.join(types)}"
            )
        try:
            chosen[name] = types[name](value)
        except ValueError as error:
            raise InputError(f"--search {name}: {value!r} is no number") from error
        if not 0 < chosen[name] < math.inf:
            raise InputError(f"--search {name}: {value!r}: must be above 0")
    return chosen


def _directories(models: Sequence[str], out: Path) -> dict[str, Path]:
    """One model is evaluated into `out` itself, several into a directory each."""
    different = list(dict.fromkeys(model.rstrip("/") or model for model in models))
    if len(different) == 1:
        return {different[0]: out}
    names = [Path(model).name for model in different]
    if len(set(names)) < len(names):
        names = [model.strip("/").replace("/", "-") for model in different]
    if len(set(names)) < len(names):
        raise InputError(f"--model: {' and '.join(different)} would be told apart by nothing; evaluate each by itself")
    return {model: folder_in(out, name) for model, name in zip(different, names, strict=True)}
