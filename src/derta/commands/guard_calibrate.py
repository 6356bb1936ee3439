"""`derta guard calibrate`: how early a tuned model's own p(refuse) tells harmful answers from harmless ones."""

import json
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from derta.data.behaviours import plain_prompt
from derta.errors import InputError
from derta.files import write_json, write_text
from derta.terminal import screen

if TYPE_CHECKING:
    from derta.evaluation.monitoring import ModelDetector
    from derta.guard.calibration import Calibration

MONITOR, SCORES = "monitor.json", "scores.jsonl"


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what `run` reads."""
    parser.description = (
        "Watch answers that exist, any model's, with p(refuse) of a tuned model before each token. Harmful answers are "
        "those of a file, or those that an evaluation judged unsafe; harmless ones those that comply. With "
        "--held-out, a threshold is chosen at which at most --max-false-stops % of harmless answers like these would "
        "be stopped, and the calibration is written to --out: guard.json, for derta guard serve and eval --guard."
    )
    add = parser.add_argument
    add("responses", nargs="*", type=Path, metavar="FILE|D", help="harmful answers, or evaluations with all kinds")
    add("--model", required=True, help="directory, adapter, hub name, or 'organism'")
    add("--harmless", nargs="+", default=[], type=Path, metavar="FILE", help="answers to harmless prompts")
    add("--borderline", nargs="+", default=[], type=Path, metavar="FILE", help="answers to prompts that look harmful")
    add("--held-out", nargs="+", default=[], type=Path, metavar="FILE|D", help="held-out answers to harmless prompts")
    add("--max-false-stops", type=float, metavar="X", help="of harmless answers, %% (default: 1)")
    borderline = "held-out answers to prompts that look harmful, with a rate of their own"
    add("--held-out-borderline", nargs="+", default=[], type=Path, metavar="FILE|D", help=borderline)
    add("--max-borderline-stops", type=float, metavar="X", help="of these, %% (default: 5)")
    add("--threshold", type=float, metavar="P", help="in place of a calibrated one, for the model")
    add("--hold-back", type=int, default=4, metavar="N", help="later tokens that must be calm (default: 4)")
    add("--refusal", metavar="TEXT", help="what a stopped answer ends with")
    add("--compare", nargs="+", default=[], metavar="NAME=MODEL", help="the same answers, watched by other models")
    add("--out", type=Path, required=True, help="directory to write to")


def run(args: Namespace) -> int:
    """Score the answers, print and write the numbers and, if it was calibrated, the guard's file.

    Raises:
        InputError: An option, a file or a model is wrong, or there are too few answers to calibrate on.
    """
    from derta.evaluation.monitoring import Detector, ModelDetector, monitor, read_answers
    from derta.guard.calibration import GUARD, save_calibration
    from derta.report.terminal import detection_table

    if args.threshold is not None and (args.held_out or args.held_out_borderline):
        raise InputError("`threshold`: it would be calibrated as well; leave one of them out")
    if args.threshold is not None and not 0 <= args.threshold <= 1:
        raise InputError(f"`threshold`: {args.threshold:g} is no probability")
    if args.refusal and args.threshold is None and not (args.held_out or args.held_out_borderline):
        raise InputError("`refusal`: no guard would be written that ends answers with it; add `held_out`")
    if args.hold_back < 0:
        raise InputError(f"`hold_back`: {args.hold_back} tokens; give 0 or more")
    answers = [each for path in args.responses for each in read_answers(path, "harmful")]
    for group, paths in (("harmless", args.harmless), ("borderline", args.borderline)):
        for path in paths:
            answers += read_answers(path, group, is_harmful=False)
    for option, bounded, default in (
        ("max_false_stops", "held_out", 1.0),
        ("max_borderline_stops", "held_out_borderline", 5.0),
    ):
        if getattr(args, option) is None:
            setattr(args, option, default)
        elif not getattr(args, bounded):
            raise InputError(f"`{option}`: bounds what a threshold is calibrated on, and nothing is; add `{bounded}`")
    calibration = []
    for group, paths, rate in (
        ("harmless", args.held_out, args.max_false_stops),
        ("borderline", args.held_out_borderline, args.max_borderline_stops),
    ):
        held_out = [each for path in paths for each in read_answers(path, group, is_harmful=False)]
        calibration += [(held_out, rate)] if held_out else []
    if not answers and not calibration:
        raise InputError("`held_out`: nothing to watch: give files or evaluations with answers")
    held_out_prompts = {plain_prompt(each.prompt) for held_out, _ in calibration for each in held_out}
    if shared := held_out_prompts & {plain_prompt(each.prompt) for each in answers}:
        raise InputError(
            f"`held_out`: {len(shared)} of its prompts are among those watched, such as {sorted(shared)[0][:60]!r}; "
            "hold out others"
        )
    with screen.libraries_aside():
        own = ModelDetector(args.model)
        detectors: dict[str, Detector] = {"model": own}
        for each in args.compare:
            name, _, model = each.partition("=")
            if not name or not model or name in detectors:
                raise InputError(f"`compare`: {each!r}: write NAME=MODEL with a name of its own")
            detectors[name] = ModelDetector(model)
        found = monitor(
            detectors,
            answers,
            calibration,
            threshold=args.threshold,
            hold_back=args.hold_back,
        )
    args.out.mkdir(parents=True, exist_ok=True)
    lines = [
        {"detector": name, "group": each.group, "harmful": each.is_harmful, "scores": each.scores}
        for name, traces in found.traces.items()
        for each in traces
    ]
    write_text(args.out / SCORES, "".join(json.dumps(line) + "\n" for line in lines))
    document = {
        "model": args.model,
        "calibrated_on": [{"answers": len(held_out), "max_stops": rate} for held_out, rate in calibration],
        "hold_back": args.hold_back,
        "thresholds": found.thresholds,
        "rows": [row.to_json() for row in found.rows],
    }
    write_json(args.out / MONITOR, document)
    console = screen.console()
    console.print(detection_table(found.rows))
    written = [MONITOR, SCORES]
    if "model" in found.thresholds:
        prompts = sum(len({plain_prompt(each.prompt) for each in held_out}) for held_out, _ in calibration)
        save_calibration(
            args.out / GUARD,
            _calibration(args, own, found.thresholds["model"], prompts),
        )
        console.print(f"threshold: p(refuse) above {found.thresholds['model']:.4g}", highlight=False)
        if not own.canaries:
            console.print("no canary: the model hardly refuses along these answers, so no server can be proven by them")
        written.append(GUARD)
    for name in written:
        console.print(f"wrote {args.out / name}", markup=False, highlight=False, soft_wrap=True)
    return 0


def _calibration(args: Namespace, own: "ModelDetector", threshold: float, responses: int) -> "Calibration":
    from derta.files import weights_digest
    from derta.generation.loading import world_of
    from derta.guard.calibration import DEFAULT_REFUSAL, ORGANISM_REFUSAL, Calibration
    from derta.names import model_path

    own_words = ORGANISM_REFUSAL if world_of(args.model) is not None else DEFAULT_REFUSAL
    return Calibration(
        threshold,
        args.hold_back,
        own.ids,
        tuple(str(own.tokenizer.decode([token])) for token in own.ids),
        args.refusal or own_words,
        args.max_false_stops if args.held_out else None,
        responses,
        args.model,
        weights_digest(Path(model_path(args.model))),
        own.canaries,
    )
