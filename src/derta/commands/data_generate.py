"""`derta data generate`: from prompts to training data, written by the user's own model."""

import json
import math
import sys
from argparse import ArgumentParser, Namespace
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from derta.commands.data_convert import check_out
from derta.commands.eval import add_model_arg, judge_names, model_args
from derta.data.behaviours import Kind
from derta.errors import InputError
from derta.evaluation.config import MAX_TOKENS, JudgeName, require_inspect
from derta.files import file_digest, write_json, write_text
from derta.names import ORGANISM
from derta.redaction import printable
from derta.terminal import screen
from derta.version import __version__

if TYPE_CHECKING:
    from derta.evaluation.generate import Generated, Maker, Prompt

_SHOWN = 10


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what `run` reads."""
    parser.description = (
        "The model refuses harmful prompts under a safety instruction and answers harmless ones in its own words. Each "
        "answer is judged, and asked for again if it isn't accepted; a prompt without an accepted answer is listed and "
        "left out. Harmful responses come from your file alone: what the model says to a harmful prompt is written "
        "only if it is a refusal. FILE.card.json says what became of every prompt."
    )
    add = parser.add_argument
    add("--model", required=True, help="directory, adapter, hub name, 'organism', or Inspect's PROVIDER/MODEL")
    add_model_arg(parser)
    add("--out", type=Path, required=True, metavar="FILE", help="JSON lines file to write")
    files: dict[str, Any] = {"action": "append", "default": [], "metavar": "FILE"}
    add("--prompts", **files, help="harmful prompts; with a harmful 'response' or 'rejected' a row becomes a triple")
    add("--helpful", **files, help="harmless prompts to answer; best with the model that is to be tuned")
    add("--borderline", **files, help="harmless prompts that look harmful, to answer (not those of an evaluation)")
    add("--refusals", type=Path, metavar="FILE", help="refusals, one a line, where the model doesn't refuse")
    add("--hold-out", **files, help="behaviours to keep out, by id and by prompt")
    add("--judge", metavar="NAME[=MODEL]", help="of answers and refusals (default: refusal, by rules)")
    add("--tries", type=int, default=4, help="how often a prompt is asked at most (default: 4)")
    temperature = "of refusals, and of answers that are asked for again (default: 0.8)"
    add("--temperature", type=float, default=0.8, help=temperature)
    add("--max-new-tokens", type=int, help="of an answer; one that is cut off is none (default: 512; organism: 96)")
    add("--seed", type=int, default=0, help="of instructions, tries and refusals")
    add("--overwrite", action="store_true", help="replace FILE and its card, and what an unfinished run left")
    parser.set_defaults(after_interrupt="the same command goes on with the prompts that are missing")


def run(args: Namespace) -> int:
    """Write the rows and their card, and say what became of every prompt.

    Returns:
        0, or 1 if the model couldn't be asked some prompts: nothing is written then, and the same command goes on.

    Raises:
        InputError: an option, a file or the model is wrong, FILE is there already, or no prompt makes a row.
    """
    out: Path = args.out
    check_out(out, [*args.prompts, *args.helpful, *args.borderline])
    progress = out.with_name(f"{out.name}.progress")
    if out.exists() and not args.overwrite:
        raise InputError(f"--out: {printable(str(out))}: exists; name another file, or replace it with --overwrite")
    if args.tries < 1 or not 0 <= args.temperature < math.inf or (args.max_new_tokens or 1) < 1:
        raise InputError("`tries` and `max_new_tokens` are 1 or more, and `temperature` is 0 or more")
    require_inspect()
    from derta.evaluation.generate import MADE, generate, sift
    from derta.evaluation.harness.provider import DertaAPI
    from derta.evaluation.inputs.hold_out import HoldOut
    from derta.threads import threads_for

    prompts = _prompts(args)
    left_out = sift(prompts, HoldOut.load(args.hold_out))
    with screen.libraries_aside():
        maker, settings = _maker(args)
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            if args.overwrite:
                progress.unlink(missing_ok=True)
        except OSError as error:
            raise InputError(f"--out: {printable(str(out))}: can't be written: {error.strerror or error}") from None
        api = maker.writer.model.api
        threads = threads_for(api.weights.model) if isinstance(api, DertaAPI) else nullcontext()
        with threads, screen.bar("prompts", len(prompts)) as advance:
            made = generate(prompts, maker, left_out=left_out, progress=progress, settings=settings, advance=advance)
    if made.failed:
        origin, problem = next(iter(made.failed.items()))
        told = f"{len(made.failed)} of {len(prompts)} prompts couldn't be asked, first {origin}: {problem}"
        print(f"derta: {printable(told)}; nothing is written yet: the same command goes on with them", file=sys.stderr)
        return 1
    if not made.rows:
        problem = next(iter(made.left_out.values()))
        raise InputError(f"none of {len(prompts)} prompts makes a row, the first because: {problem}")
    card = out.with_name(f"{out.name}.card.json")
    try:
        write_json(card, _card(made, prompts, settings))
        write_text(out, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in made.rows))
        progress.unlink()
    except OSError as error:
        raise InputError(f"--out: {printable(str(out))}: can't be written: {error.strerror or error}") from None
    counts = made.counts()
    left = list(made.left_out.items())
    lines = [
        *(f"left out: {origin}: {problem}" for origin, problem in left[:_SHOWN]),
        *([f"... and {len(left) - _SHOWN} more, in {card}"] if len(left) > _SHOWN else []),
        f"written by: {', '.join(f'{who} {count}' for who, count in made.written().items())}",
        f"wrote {', '.join(f'{counts[what]} {what}' for what in MADE if what in counts)} to {out}; {card} says how",
    ]
    for line in lines:
        screen.console().print(Text(printable(line)), soft_wrap=True)
    _warn(made, args)
    return 0


def _prompts(args: Namespace) -> list["Prompt"]:
    from derta.evaluation.generate import Prompt
    from derta.evaluation.inputs.behaviours import load_requests

    # The harmful ones first: the same prompt among the others isn't asked then.
    files: dict[Kind, list[str]] = {"harmful": args.prompts, "borderline": args.borderline, "helpful": args.helpful}
    prompts = [
        Prompt(*each) for kind, of_kind in files.items() for file in of_kind for each in load_requests(file, kind)
    ]
    if not prompts:
        raise InputError("nothing to answer: give `prompts`, `helpful` or `borderline` FILE")
    return prompts


def _maker(args: Namespace) -> tuple["Maker", dict[str, Any]]:
    """Load the model and its judge; return them with what makes two runs the same."""
    from derta.evaluation.generate import Maker
    from derta.evaluation.harness.judges import load_judge
    from derta.evaluation.harness.models import TEMPLATE, load_model, world_of
    from derta.evaluation.harness.provider import DertaAPI
    from derta.evaluation.harness.target import check_capabilities
    from derta.evaluation.harness.writer import Writer
    from derta.evaluation.inputs.answers import load_refusals
    from derta.evaluation.plan import ORGANISM_NEW_TOKENS
    from derta.generation.loading import fingerprint

    refusals = load_refusals(args.refusals) if args.refusals else []
    of_organism = world_of(args.model) is not None
    judges = judge_names(args.judge) or (JudgeName(ORGANISM if of_organism else "refusal"),)
    if len(judges) > 1:
        raise InputError("`judge`: one decides; name one")
    given = model_args(args.model_arg)
    most = args.max_new_tokens or (ORGANISM_NEW_TOKENS if of_organism else MAX_TOKENS)
    model = load_model(args.model, given)
    check_capabilities(model, {})
    writer = Writer(model, load_judge(judges[0]), most, args.tries, args.temperature, args.seed, given.get(TEMPLATE))
    files = [*args.prompts, *args.borderline, *args.helpful, *args.hold_out, *filter(None, [args.refusals])]
    settings = {
        "made_by": f"derta data generate {__version__}",
        "model": args.model,
        "digest": fingerprint(model.api.weights.model) if isinstance(model.api, DertaAPI) else None,
        "judge": args.judge or judges[0].name,
        "prompts": args.prompts,
        "borderline": args.borderline,
        "helpful": args.helpful,
        "hold_out": args.hold_out,
        "refusals": str(args.refusals) if args.refusals else None,
        "files": {str(file): file_digest(Path(file))[:16] for file in files if Path(file).is_file()},
        "chat_template_kwargs": given.get(TEMPLATE),
        "tries": args.tries,
        "temperature": args.temperature,
        "max_new_tokens": most,
        "seed": args.seed,
    }
    return Maker(writer, args.model, judges[0].name, of_organism, refusals), settings


def _card(made: "Generated", prompts: list["Prompt"], settings: dict[str, Any]) -> dict[str, Any]:
    from derta.evaluation.harness.writer import INSTRUCTIONS

    return {
        **settings,
        "instructions": INSTRUCTIONS,
        "rows": len(made.rows),
        "counts": made.counts(),
        "written_by": made.written(),
        "left_out": made.left_out,
        "never_evaluate_on": [
            each.behaviour.id for each in prompts if (outcome := made.outcomes[each.origin]) and outcome.row is not None
        ],
    }


def _warn(made: "Generated", args: Namespace) -> None:
    from derta.evaluation.generate import REFUSALS_ALONE

    lines = [f"the prompts of {len(made.rows)} rows are training data now: never evaluate on them"]
    if alone := made.counts().get(REFUSALS_ALONE):
        lines.append(
            f"{alone} harmful prompts have no harmful response: their rows teach to refuse at the start alone, as "
            f"ordinary safety tuning does; give 'response' or 'rejected', or take an evaluation's: data from-eval"
        )
    if args.hold_out and "held out" not in made.left_out.values():
        lines.append(f"--hold-out {' '.join(args.hold_out)}: names no prompt of these files")
    for line in lines:
        print(f"derta: {printable(line)}", file=sys.stderr)
