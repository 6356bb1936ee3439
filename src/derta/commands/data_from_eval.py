"""`derta data from-eval`: what an evaluation found wrong becomes training data."""

import asyncio
import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.text import Text

from derta.commands.data_convert import check_out
from derta.errors import InputError
from derta.evaluation.config import MAX_TOKENS, JudgeName, require_inspect
from derta.evaluation.failures import (
    HELPFUL,
    TRIPLE,
    Ask,
    Gathered,
    answering,
    behaviour_of,
    find_deciding,
    gather,
    is_of_organism,
    judge_of,
    prompt_of,
    refusing,
)
from derta.evaluation.inputs.answers import REFUSALS, Answer, load_answers, load_refusals
from derta.evaluation.inputs.hold_out import HoldOut
from derta.evaluation.results.outcomes import WITHOUT_HARM
from derta.evaluation.results.sample import Sample
from derta.evaluation.results.store import Evaluation, find_evaluations, load_evaluation
from derta.files import write_json, write_text
from derta.redaction import printable
from derta.terminal import screen
from derta.termination import run_to_end
from derta.version import __version__

_SHOWN = 10


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what `run` reads."""
    parser.description = (
        "Unsafe answers become triples: the whole request as the model got it, a refusal as chosen, the whole answer "
        "(what it was begun with included, in plain words where it was in cipher) as rejected. Harmless prompts that "
        "were refused become helpful examples, with answers of a file or of a model. Broken and unscored answers are "
        "never used. FILE.card.json says what became of every sample."
    )
    add = parser.add_argument
    add("directory", type=Path, metavar="DIR", help="directory of an evaluation, or of several")
    add("--out", type=Path, required=True, metavar="FILE", help="JSON lines file to write")
    add("--judge", metavar="NAME", help="whose verdicts count (default: the first judge's)")
    add("--refusals", type=Path, metavar="FILE", help="refusals to draw from, one a line")
    add("--answers", type=Path, metavar="FILE", help="prompts and answers for harmless prompts that were refused")
    add("--model", metavar="START", help="answers those that FILE has no answer to; named as for derta eval")
    add("--max-new-tokens", type=int, help="of START's answers (default: as in the evaluation)")
    add("--hold-out", action="append", default=[], metavar="FILE", help="behaviours to keep out, by id and by prompt")
    add("--seed", type=int, default=0, help="of the refusals that are drawn")
    add("--overwrite", action="store_true", help="replace FILE and its card")


def run(args: Namespace) -> int:
    """Write the rows and their card, and say what became of every sample.

    Raises:
        InputError: an evaluation or a file is wrong, FILE is there already, or there is nothing to learn from.
    """
    out: Path = args.out
    check_out(out)
    if out.exists() and not args.overwrite:
        raise InputError(f"--out: {printable(str(out))}: exists; name another file, or replace it with --overwrite")
    refusals = load_refusals(args.refusals) if args.refusals else []
    hold_out = HoldOut.load(args.hold_out)
    known = load_answers(args.answers) if args.answers else {}
    answer = answering(known, _ask(args.model, args.max_new_tokens))
    evaluations = [load_evaluation(directory) for directory in find_evaluations(args.directory)]
    with screen.libraries_aside():
        gathered = gather(
            evaluations, judge=args.judge, hold_out=hold_out, refuse=refusing(refusals, args.seed), answer=answer
        )
    told = ", ".join(f"{count} {what}" for what, count in gathered.counts.items() if count)
    if not gathered.rows:
        raise InputError(f"{printable(str(args.directory))}: nothing in it makes a row: {told or 'it holds no sample'}")
    card = out.with_name(f"{out.name}.card.json")
    sources = {
        "refusals": _refusals_from(args.refusals, evaluations),
        "answers": str(args.answers) if args.answers else None,
        "answering_model": args.model,
        "hold_out": args.hold_out,
        "seed": args.seed,
    }
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_json(card, _card(gathered, evaluations, args.judge, sources))
        write_text(out, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in gathered.rows))
    except OSError as error:
        raise InputError(f"--out: {printable(str(out))}: can't be written: {error.strerror or error}") from None
    _report(gathered, out, card)
    _warn(gathered, evaluations, args)
    return 0


def _ask(name: str | None, most: int | None) -> Ask | None:
    """Return what lets the start model answer, greedily; it is loaded when there is something to answer."""
    if most is not None and (name is None or most < 1):
        mend = "give 1 token or more" if name else "it limits the answers of `model`; name one"
        raise InputError(f"`max_new_tokens`: {most}: {mend}")
    if name is None:
        return None
    require_inspect()
    from derta.evaluation.harness.judges import load_judge
    from derta.evaluation.harness.models import TEMPLATE, load_model, load_tokenizer
    from derta.evaluation.harness.writer import Writer

    load_tokenizer(name)  # a mistyped name is told at once

    def ask(evaluation: Evaluation, samples: Sequence[Sample]) -> Sequence[Answer]:
        template = (evaluation.settings.get("model_args") or {}).get(TEMPLATE)
        model = load_model(name, {TEMPLATE: template} if template else None)
        limit = most or evaluation.settings.get("max_new_tokens") or MAX_TOKENS
        writer = Writer(model, load_judge(JudgeName(judge_of(evaluation))), limit, chat_template_kwargs=template)

        async def answer_all() -> list[Answer]:
            return await asyncio.gather(*(writer.answer(behaviour_of(each), prompt_of(each)) for each in samples))

        return run_to_end(answer_all())

    return ask


def _refusals_from(file: Path | None, evaluations: Sequence[Evaluation]) -> Any:
    if file is not None:
        return str(file)
    return "the organism's own" if all(map(is_of_organism, evaluations)) else list(REFUSALS)


def _card(
    gathered: Gathered, evaluations: Sequence[Evaluation], judge: str | None, sources: dict[str, Any]
) -> dict[str, Any]:
    return {
        "made_by": f"derta data from-eval {__version__}",
        "evaluations": [
            {
                "directory": str(each.directory),
                "model": each.model.model,
                "digest": each.model.digest,
                "judge": find_deciding(each, judge),
            }
            for each in evaluations
        ],
        **sources,
        "rows": len(gathered.rows),
        "counts": {what: count for what, count in gathered.counts.items() if count},
        "not_made": [each._asdict() for each in gathered.not_made],
        "held_out": list(gathered.held_out),
        "never_evaluate_on": [{"id": id_, "prompt": prompt} for prompt, id_ in gathered.behaviours.items()],
    }


def _report(gathered: Gathered, out: Path, card: Path) -> None:
    console = screen.console()
    unused = [f"{count} {what}" for what, count in gathered.counts.items() if count and what not in (TRIPLE, HELPFUL)]
    more = len(gathered.not_made) - _SHOWN
    lines = [
        *([f"not used: {', '.join(unused)}"] if unused else []),
        *(f"not made: {each.id}: {each.problem}" for each in gathered.not_made[:_SHOWN]),
        *([f"... and {more} more, in {card}"] if more > 0 else []),
        f"wrote {gathered.counts[TRIPLE]} {TRIPLE} and {gathered.counts[HELPFUL]} {HELPFUL} to {out}; {card} says how",
    ]
    for line in lines:
        console.print(Text(printable(line)), soft_wrap=True)


def _warn(gathered: Gathered, evaluations: Sequence[Evaluation], args: Namespace) -> None:
    deciding = {find_deciding(each, args.judge) for each in evaluations}
    lines = [f"{len(gathered.behaviours)} behaviours of {args.directory} are training data now: never evaluate on them"]
    if rules := sorted(deciding & WITHOUT_HARM):
        lines.append(f"{rules[0]} judges by rules whether a model complies, not whether it does harm; read the triples")
    if args.hold_out and not gathered.held_out:
        lines.append(f"--hold-out {' '.join(args.hold_out)}: names no behaviour of {args.directory}")
    for line in lines:
        print(f"derta: {printable(line)}", file=sys.stderr)
