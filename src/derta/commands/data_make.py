"""`derta data make`: training data of prompts, of what an evaluation found wrong, or of the organism's world."""

import asyncio
import json
import math
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from derta.commands.data_convert import check_out
from derta.commands.eval import add_model_arg, judge_names, model_args
from derta.data.behaviours import Behaviour, Kind
from derta.errors import InputError
from derta.evaluation.config import MAX_TOKENS, JudgeName, require_inspect
from derta.files import file_digest, write_json, write_text, written_whole
from derta.names import ORGANISM, PACKAGED_WORLD
from derta.redaction import printable
from derta.terminal import screen
from derta.termination import run_to_end
from derta.version import __version__

if TYPE_CHECKING:
    from derta.evaluation.failures import Ask
    from derta.evaluation.generate import Maker, Prompt
    from derta.evaluation.inputs.hold_out import HoldOut
    from derta.evaluation.results.store import Evaluation

_SHOWN = 10
_MADE_BY = f"derta data make {__version__}"


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what `run` reads."""
    parser.description = (
        "Of prompts: the model refuses harmful ones under a safety instruction and answers harmless ones in its own "
        "words; each answer is judged, and asked for again if it isn't accepted. Harmful responses come from your file "
        "alone: what the model says to a harmful prompt is written only if it is a refusal. Of an evaluation: unsafe "
        "answers become triples, harmless prompts that were refused helpful examples. FILE.card.json says what became "
        "of every prompt or sample."
    )
    add = parser.add_argument
    files: dict[str, Any] = {"action": "append", "default": [], "metavar": "FILE"}
    add("--harmful", **files, help="harmful prompts; with a harmful 'response' or 'rejected' a row becomes a triple")
    add("--helpful", **files, help="harmless prompts to answer; best with the model that is to be tuned")
    add("--borderline", **files, help="harmless prompts that look harmful, to answer (not those of an evaluation)")
    add("--borderline-like", **files, help="harmful prompts, to make and answer harmless ones that look like them")
    add("--count", type=int, default=200, help="how many prompts --borderline-like makes (default: 200)")
    add("--from-eval", type=Path, metavar="DIR", help="directory of an evaluation, or of several")
    add("--organism", type=int, nargs="?", const=PACKAGED_WORLD, metavar="WORLD", help="write its data, in DIR")
    add("--out", type=Path, required=True, metavar="FILE", help="JSON lines file to write (--organism: a directory)")
    add("--model", help="directory, adapter, hub name, 'organism', or Inspect's PROVIDER/MODEL")
    add_model_arg(parser)
    add("--refusals", type=Path, metavar="FILE", help="refusals, one a line, where the model doesn't refuse")
    add("--answers", type=Path, metavar="FILE", help="with --from-eval: answers to harmless prompts that were refused")
    add("--hold-out", **files, help="behaviours to keep out, by id and by prompt")
    judge = "of answers and refusals (default: refusal, by rules); with --from-eval: whose verdicts count"
    add("--judge", metavar="NAME[=MODEL]", help=judge)
    add("--tries", type=int, default=4, help="how often a prompt is asked at most (default: 4)")
    temperature = "of refusals, and of answers that are asked for again (default: 0.8)"
    add("--temperature", type=float, default=0.8, help=temperature)
    add(
        "--max-new-tokens",
        type=int,
        help="of an answer; one that is cut off ends at its last whole sentence (default: 512; organism: 96)",
    )
    add("--seed", type=int, default=0, help="of everything that is drawn")
    add("--overwrite", action="store_true", help="replace FILE and its card, and what an unfinished run left")
    parser.set_defaults(after_interrupt="the same command goes on with the prompts that are missing")


def run(args: Namespace) -> int:
    """Write the rows and their card, and say what became of every prompt or sample.

    Returns:
        0, or 1 if the model couldn't be asked some prompts: nothing is written then, and the same command goes on.

    Raises:
        InputError: An option, a file, an evaluation or the model is wrong, FILE is there already, or nothing makes a
            row.
    """
    prompt_files = [*args.harmful, *args.helpful, *args.borderline, *args.borderline_like]
    given = [bool(prompt_files), args.from_eval is not None, args.organism is not None]
    if sum(given) != 1:
        kinds = "`harmful`, `helpful`, `borderline` or `borderline_like` FILE, `from_eval` DIR, or `organism`"
        raise InputError(f"{'one thing at a time' if any(given) else 'nothing to make data of'}: give {kinds}")
    if args.organism is not None:
        return _of_organism(args.organism, args.out)
    check_out(args.out, prompt_files)
    if args.out.exists() and not args.overwrite:
        raise InputError(f"--out: {_name(args.out)}: exists; name another file, or replace it with --overwrite")
    if args.tries < 1 or args.count < 1 or not 0 <= args.temperature < math.inf:
        raise InputError("`tries` and `count` are 1 or more, and `temperature` is 0 or more")
    if args.max_new_tokens is not None and (args.model is None or args.max_new_tokens < 1):
        mend = "give 1 token or more" if args.model else "it limits the answers of `model`; name one"
        raise InputError(f"`max_new_tokens`: {args.max_new_tokens}: {mend}")
    if args.answers and not args.from_eval:
        raise InputError("`answers` go with `from_eval`: leave them out")
    return _of_evaluations(args) if args.from_eval else _of_prompts(args)


def _of_organism(world_id: int, out: Path) -> int:
    """Write the training data and the evaluation behaviours of a world into a directory."""
    from derta.organism import World, behaviours, training_data

    world = World(world_id)
    train = [{key: value for key, value in row.items() if value is not None} for row in training_data(world).to_list()]
    out.mkdir(parents=True, exist_ok=True)
    files = {"train.jsonl": train, "behaviours.jsonl": [asdict(each) for each in behaviours(world=world)]}
    with written_whole(out) as draft:
        for name, rows in files.items():
            write_text(draft / name, _json_lines(rows))
    _say(f"wrote {out / name}: {len(rows)} rows" for name, rows in files.items())
    return 0


def _of_prompts(args: Namespace) -> int:
    from derta.evaluation.generate import MADE, REFUSALS_ALONE, generate, sift
    from derta.evaluation.harness.writer import INSTRUCTIONS
    from derta.evaluation.inputs.hold_out import HoldOut
    from derta.threads import threads_for

    require_inspect()
    hold_out = HoldOut.load(args.hold_out)
    prompts = _prompts(args, hold_out)
    if args.model is None:
        if args.harmful or args.borderline or not args.borderline_like:
            raise InputError("`model`: name the model that writes the answers")
        made_up = [each.behaviour.prompt for each in prompts if each.behaviour.kind == "borderline"]
        rows = [{"prompt": prompt, "kind": "borderline"} for prompt in made_up]
        _write(args.out, rows, None)
        _say([f"wrote {len(rows)} prompts to {args.out}; --model answers them (--borderline {args.out})"])
        return 0
    left_out = sift(prompts, hold_out)
    progress = args.out.with_name(f"{args.out.name}.progress")
    with screen.libraries_aside():
        maker, settings = _maker(args)
        try:
            args.out.parent.mkdir(parents=True, exist_ok=True)
            if args.overwrite:
                progress.unlink(missing_ok=True)
        except OSError as error:
            raise InputError(f"--out: {_name(args.out)}: can't be written: {error.strerror or error}") from None
        weights = getattr(maker.writer.model.api, "weights", None)
        threads = nullcontext() if weights is None else threads_for(weights.model)
        with threads, screen.bar("prompts", len(prompts)) as advance:
            made = generate(prompts, maker, left_out=left_out, progress=progress, settings=settings, advance=advance)
    if made.failed:
        origin, problem = next(iter(made.failed.items()))
        told = f"{len(made.failed)} of {len(prompts)} prompts couldn't be asked, first {origin}: {problem}"
        _warn([f"{told}; nothing is written yet: the same command goes on with them"])
        return 1
    if not made.rows:
        problem = next(iter(made.left_out.values()))
        raise InputError(f"none of {len(prompts)} prompts makes a row, the first because: {problem}")
    counts, left = made.counts(), list(made.left_out.items())
    rows_of = [each.behaviour.id for each in prompts if made.outcomes[each.origin].row is not None]
    card = _write(
        args.out,
        made.rows,
        {
            **settings,
            "instructions": INSTRUCTIONS,
            "rows": len(made.rows),
            "counts": counts,
            "written_by": made.written(),
            "left_out": made.left_out,
            "never_evaluate_on": rows_of,
        },
    )
    progress.unlink()
    wrote = [f"{counts[what]} {what}" for what in MADE if what in counts]
    _say(
        [
            *(f"left out: {origin}: {problem}" for origin, problem in left[:_SHOWN]),
            *([f"... and {len(left) - _SHOWN} more, in {card}"] if len(left) > _SHOWN else []),
            f"written by: {', '.join(f'{who} {count}' for who, count in made.written().items())}",
            f"wrote {', '.join(wrote)} to {args.out}; {card} says how",
        ]
    )
    _warn([f"the prompts of {len(made.rows)} rows are training data now: never evaluate on them"])
    if alone := counts.get(REFUSALS_ALONE):
        _warn(
            [
                f"{alone} harmful prompts have no harmful response: their rows teach to refuse at the start alone, as "
                f"ordinary safety tuning does; give 'response' or 'rejected', or take an evaluation's: --from-eval"
            ]
        )
    if args.hold_out and "held out" not in made.left_out.values():
        _warn([f"--hold-out {' '.join(args.hold_out)}: names no prompt of these files"])
    return 0


def _prompts(args: Namespace, hold_out: "HoldOut") -> list["Prompt"]:
    from derta.data.borderline import borderline_prompts
    from derta.evaluation.generate import Prompt
    from derta.evaluation.inputs.behaviours import load_requests

    # The harmful ones first: the same prompt among the others isn't asked then.
    files: dict[Kind, list[str]] = {"harmful": args.harmful, "borderline": args.borderline, "helpful": args.helpful}
    prompts = []
    for kind, of_kind in files.items():
        for file in of_kind:
            prompts += [Prompt(*each) for each in load_requests(file, kind)]
    if not args.borderline_like:
        return prompts
    harmful: list[str] = []
    for file in args.borderline_like:
        harmful += [behaviour.prompt for _, behaviour in load_requests(file, "harmful")]
    harmless = [each.behaviour.prompt for each in prompts if each.behaviour.kind == "helpful"]
    kept_out = [*hold_out.prompts, *harmful]
    made = borderline_prompts(harmful, harmless, args.count, hold_out=kept_out, seed=args.seed)
    for number, prompt in enumerate(made, start=1):
        origin = f"borderline:{number}"
        prompts.append(Prompt(origin, Behaviour(origin, prompt, "borderline")))
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
    prompt_files = [*args.harmful, *args.borderline, *args.borderline_like, *args.helpful]
    files = [*prompt_files, *args.hold_out, *filter(None, [args.refusals])]
    settings = {
        "made_by": _MADE_BY,
        "model": args.model,
        "digest": fingerprint(model.api.weights.model) if isinstance(model.api, DertaAPI) else None,
        "judge": args.judge or judges[0].name,
        "harmful": args.harmful,
        "borderline": args.borderline,
        "borderline_like": args.borderline_like,
        "count": args.count if args.borderline_like else None,
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


def _of_evaluations(args: Namespace) -> int:
    from derta.evaluation.failures import HELPFUL, TRIPLE, answering, find_deciding, gather, is_of_organism, refusing
    from derta.evaluation.inputs.answers import REFUSALS, load_answers, load_refusals
    from derta.evaluation.inputs.hold_out import HoldOut
    from derta.evaluation.results.outcomes import WITHOUT_HARM
    from derta.evaluation.results.store import find_evaluations, load_evaluation

    refusals = load_refusals(args.refusals) if args.refusals else []
    hold_out = HoldOut.load(args.hold_out)
    answer = answering(load_answers(args.answers) if args.answers else {}, _ask(args.model, args.max_new_tokens))
    evaluations = [load_evaluation(directory) for directory in find_evaluations(args.from_eval)]
    with screen.libraries_aside():
        gathered = gather(
            evaluations, judge=args.judge, hold_out=hold_out, refuse=refusing(refusals, args.seed), answer=answer
        )
    told = ", ".join(f"{count} {what}" for what, count in gathered.counts.items() if count)
    if not gathered.rows:
        raise InputError(f"{_name(args.from_eval)}: nothing in it makes a row: {told or 'it holds no sample'}")
    own = "the organism's own" if all(map(is_of_organism, evaluations)) else list(REFUSALS)
    deciding = [find_deciding(each, args.judge) for each in evaluations]
    card = _write(
        args.out,
        gathered.rows,
        {
            "made_by": _MADE_BY,
            "evaluations": [
                {
                    "directory": str(each.directory),
                    "model": each.model.model,
                    "digest": each.model.digest,
                    "judge": judge,
                }
                for each, judge in zip(evaluations, deciding, strict=True)
            ],
            "refusals": str(args.refusals) if args.refusals else own,
            "answers": str(args.answers) if args.answers else None,
            "answering_model": args.model,
            "hold_out": args.hold_out,
            "seed": args.seed,
            "rows": len(gathered.rows),
            "counts": {what: count for what, count in gathered.counts.items() if count},
            "not_made": [each._asdict() for each in gathered.not_made],
            "held_out": list(gathered.held_out),
            "never_evaluate_on": [{"id": id_, "prompt": prompt} for prompt, id_ in gathered.behaviours.items()],
        },
    )
    counts, more = gathered.counts, len(gathered.not_made) - _SHOWN
    unused = [f"{count} {what}" for what, count in counts.items() if count and what not in (TRIPLE, HELPFUL)]
    _say(
        [
            *([f"not used: {', '.join(unused)}"] if unused else []),
            *(f"not made: {each.id}: {each.problem}" for each in gathered.not_made[:_SHOWN]),
            *([f"... and {more} more, in {card}"] if more > 0 else []),
            f"wrote {counts[TRIPLE]} {TRIPLE} and {counts[HELPFUL]} {HELPFUL} to {args.out}; {card} says how",
        ]
    )
    spent = f"{len(gathered.behaviours)} behaviours of {args.from_eval} are training data now: never evaluate on them"
    _warn([spent])
    if rules := sorted(set(deciding) & WITHOUT_HARM):
        _warn([f"{rules[0]} judges by rules whether a model complies, not whether it does harm; read the triples"])
    if args.hold_out and not gathered.held_out:
        _warn([f"--hold-out {' '.join(args.hold_out)}: names no behaviour of {args.from_eval}"])
    return 0


def _ask(name: str | None, most: int | None) -> "Ask | None":
    """Return what lets a model answer, greedily; it is loaded when there is something to answer."""
    if name is None:
        return None
    require_inspect()
    from derta.evaluation.failures import behaviour_of, judge_of, prompt_of
    from derta.evaluation.harness.judges import load_judge
    from derta.evaluation.harness.models import TEMPLATE, load_model, load_tokenizer
    from derta.evaluation.harness.writer import Writer
    from derta.evaluation.inputs.answers import Answer
    from derta.evaluation.results.sample import Sample

    load_tokenizer(name)  # a mistyped name is told at once

    def ask(evaluation: "Evaluation", samples: Sequence[Sample]) -> Sequence[Answer]:
        template = (evaluation.settings.get("model_args") or {}).get(TEMPLATE)
        model = load_model(name, {TEMPLATE: template} if template else None)
        limit = most or evaluation.settings.get("max_new_tokens") or MAX_TOKENS
        writer = Writer(model, load_judge(JudgeName(judge_of(evaluation))), limit, chat_template_kwargs=template)

        async def answer_all() -> list[Answer]:
            return await asyncio.gather(*(writer.answer(behaviour_of(each), prompt_of(each)) for each in samples))

        return run_to_end(answer_all())

    return ask


def _name(path: Path) -> str:
    return printable(str(path))


def _json_lines(rows: Iterable[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _write(out: Path, rows: Sequence[dict[str, Any]], says: dict[str, Any] | None) -> Path:
    """Write rows and the card that says where they come from; return its place."""
    card = out.with_name(f"{out.name}.card.json")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if says is not None:
            write_json(card, says)
        write_text(out, _json_lines(rows))
    except OSError as error:
        raise InputError(f"--out: {_name(out)}: can't be written: {error.strerror or error}") from None
    return card


def _say(lines: Iterable[str]) -> None:
    for line in lines:
        screen.console().print(Text(printable(line)), soft_wrap=True)


def _warn(lines: Iterable[str]) -> None:
    for line in lines:
        print(f"derta: {printable(line)}", file=sys.stderr)
