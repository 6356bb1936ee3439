"""`derta lm-eval`: standard benchmarks through lm-eval, on a model loaded as everything else here loads it."""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from rich.text import Text

from derta.errors import InputError
from derta.evaluation.results.metrics import MetricRow
from derta.evaluation.results.store import RESULTS, claim, save_results
from derta.redaction import printable
from derta.report.terminal import format_value
from derta.terminal import NumbersTable, screen


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what `run` reads."""
    parser.add_argument("--model", required=True, help="model or adapter directory, hub name, or 'organism'")
    parser.add_argument("--tasks", required=True, help="lm-eval's names, separated by commas")
    parser.add_argument("--limit", type=int, help="samples of each task at most")
    parser.add_argument("--include-path", type=Path, help="directory with tasks of your own (YAML)")
    parser.add_argument("--apply-chat-template", action="store_true", help="prompts as a chat, examples as its turns")
    parser.add_argument("--out", type=Path, required=True, help="directory to write results.json to")


def run(args: Namespace) -> int:
    """Write `results.json` and print the table.

    Returns:
        0, or 1 if some score isn't a number.

    Raises:
        InputError: the model, a task, an option or the directory is wrong.
    """
    model, out, limit, include_path = args.model, args.out, args.limit, args.include_path
    names = list(dict.fromkeys(name.strip() for name in args.tasks.split(",") if name.strip()))
    if not names:
        raise InputError("--tasks: name at least one of lm-eval's tasks")
    if limit is not None and limit < 1:
        raise InputError(f"--limit: {limit} samples of each task are too few; give 1 or more")
    if include_path is not None and not include_path.is_dir():
        raise InputError(f"--include-path: {include_path}: no such directory")
    from derta.evaluation.lm_eval import JUDGE, find_tasks, run_lm_eval
    from derta.inference.loading import fingerprint, load_model
    from derta.threads import threads_for

    manager = find_tasks(names, include_path)
    loaded, tokenizer = load_model(model)
    if args.apply_chat_template and not tokenizer.chat_template:
        raise InputError(f"--apply-chat-template: {model} has no chat template; leave it out")
    settings = {
        "model": model,
        "fingerprint": fingerprint(loaded),
        "harness": JUDGE,
        "harness_tasks": names,
        "limit": limit,
        "apply_chat_template": args.apply_chat_template,
    }
    claim(out, settings, {})
    with threads_for(loaded):
        rows, made_with = run_lm_eval(
            loaded,
            tokenizer,
            names,
            manager,
            name=model,
            limit=limit,
            apply_chat_template=args.apply_chat_template,
        )
    save_results(out / RESULTS, rows, **made_with)
    console = screen.console()
    console.print(_table(rows))
    console.print(f"wrote {out / RESULTS}", markup=False, highlight=False, soft_wrap=True)
    for row in (missing := [row for row in rows if row.value is None]):
        screen.say(f"derta: {row.attack}: {row.metric} isn't a number", errors=True, always=True)
    return int(bool(missing))


def _table(rows: Sequence[MetricRow]) -> NumbersTable:
    table = NumbersTable()
    table.add_columns("task", "metric")
    table.add_columns("value", "n", justify="right")
    for row in rows:
        unit = " %" if row.unit == "%" else ""
        cells = (row.attack, row.metric, format_value(row) + unit, str(row.n))
        table.add_row(*(Text(printable(cell)) for cell in cells))
    return table
