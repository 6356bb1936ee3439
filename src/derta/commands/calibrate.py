"""`derta calibrate`: one bias on the refusal tokens, as high as harmless prompts allow."""

import json
import math
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from rich.console import Console

from derta.errors import InputError
from derta.files import read_json, write_json
from derta.terminal import NumbersTable, screen

GENERATION, BIAS = "generation_config.json", "bias.json"


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what `run` reads."""
    parser.description = (
        "Choose one number to add to the logits of the refusal tokens: the highest of --biases at which the upper end "
        "of the 95 % interval of false refusals keeps within --max-false-refusal. It is written into a copy of "
        "generation_config.json in --out, or with --write into the model's own, where transformers and derta read "
        "it; servers take the logit_bias that is printed. Exit code 1: no bias keeps within the limit, and nothing is "
        "written."
    )
    add = parser.add_argument
    add("--model", required=True, help="directory of the model, or 'organism'")
    add("--harmless", required=True, metavar="FILE", help="held-out harmless prompts")
    add("--max-false-refusal", type=float, default=1.0, metavar="X", help="of harmless prompts, %% (default: 1)")
    add("--behaviours", metavar="FILE", help="harmful prompts, or 'organism': what each bias costs in attack success")
    add(
        "--attacks", default="direct,prefill,completing", help="how they are asked (default: direct,prefill,completing)"
    )
    add("--biases", default="-8,-4,-2,0,2", metavar="B,…", help="to try (default: -8,-4,-2,0,2)")
    add("--limit", type=int, help="prompts of each kind at most")
    add("--max-new-tokens", type=int, help="of an answer (default: 512; 96 for the organism)")
    place = parser.add_mutually_exclusive_group(required=True)
    place.add_argument("--out", type=Path, help="directory to write bias.json and generation_config.json to")
    place.add_argument("--write", action="store_true", help="write into the model's own directory")


def run(args: Namespace) -> int:
    """Try the biases, print what each does, and write the chosen one.

    Returns:
        0, or 1 if no bias keeps within the limit.

    Raises:
        InputError: An option, a file or the model is wrong, or there are too few prompts.
    """
    biases = _numbers(args.biases)
    directory = Path(args.model).expanduser()
    if args.write and not (directory / "config.json").is_file():
        raise InputError(f"`write`: {args.model} is no directory of a whole model; name a copy's place with `out`")
    from derta.evaluation.attacks import attack_names
    from derta.evaluation.bias import biased, choose_bias, measure_biases
    from derta.evaluation.config import Options
    from derta.evaluation.in_process import check_asks_once
    from derta.evaluation.plan import ORGANISM_NEW_TOKENS, make_plan
    from derta.generation import load_model
    from derta.generation.loading import world_of
    from derta.generation.refusal import refusal_ids
    from derta.names import model_path
    from derta.run_identity import read_identity, template_options

    with screen.libraries_aside():
        model, tokenizer = load_model(args.model)
    tokens = refusal_ids(args.model, tokenizer)
    world = world_of(args.model)
    length = args.max_new_tokens
    if length is None and world is not None:
        length = ORGANISM_NEW_TOKENS
    asked = {"limit": args.limit, "max_new_tokens": length}
    harmless = make_plan(Options(borderline=(args.harmless,), **asked), tokenizer)
    harmful = None
    if args.behaviours:
        attacks = tuple(attack_names(args.attacks))
        harmful = make_plan(Options(attacks, args.behaviours, **asked), tokenizer, world=world)
        for kind in ("borderline", "helpful"):
            harmful.samples.pop(kind, None)
        check_asks_once(harmful, "for a bias")
    template = template_options(read_identity(Path(model_path(args.model))))
    rows = measure_biases(model, tokenizer, tokens, biases, harmless, harmful, chat_template_kwargs=template)
    chosen = choose_bias(rows, args.max_false_refusal)
    console = screen.console()
    console.print(_table(rows, chosen))
    if chosen is None:
        console.print(
            f"no bias tried keeps false refusals within {args.max_false_refusal:g} % with its whole interval: "
            "try lower --biases, or give more prompts; nothing was written",
            soft_wrap=True,
        )
        return 1
    logit_bias = {str(token): chosen.bias for token in tokens}
    document = {
        "model": args.model,
        "bias": chosen.bias,
        "tokens": tokens,
        "logit_bias": logit_bias,
        "max_false_refusal": args.max_false_refusal,
        "rows": [row.to_json() for row in rows],
    }
    out = directory if args.write else args.out
    _write(Path(model_path(args.model)), out, biased(model, tokens, chosen.bias), document, console)
    console.print(
        f"for servers: {json.dumps({'logit_bias': logit_bias})}", markup=False, highlight=False, soft_wrap=True
    )
    return 0


def _write(model: Path, out: Path, bias: list[Any], document: dict[str, Any], console: Console) -> None:
    """Write the configuration and what it was chosen by; say what bias it takes the place of."""
    shipped = read_json(model / GENERATION) if (model / GENERATION).is_file() else {}
    if out != model and (out / GENERATION).exists():
        raise InputError(f"`out`: {out / GENERATION} is there already; give another directory, or use `write`")
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / GENERATION, {**shipped, "sequence_bias": bias})
    write_json(out / BIAS, document)
    for name in (GENERATION, BIAS):
        console.print(f"wrote {out / name}", markup=False, highlight=False, soft_wrap=True)
    if shipped.get("sequence_bias"):
        replaced = json.dumps(shipped["sequence_bias"])
        console.print(f"in place of sequence_bias {replaced}", markup=False, highlight=False, soft_wrap=True)


def _table(rows: Any, chosen: Any) -> NumbersTable:
    table = NumbersTable()
    table.caption = f"95 % intervals in brackets; {rows[0].prompts} harmless prompts, {rows[0].attacked} attacks"
    table.add_columns("bias", "false refusals, %", "attack success, %", "", justify="right")
    for row in rows:
        refused = f"{row.false_refusals:.1f} [{row.false_low:.1f}, {row.false_high:.1f}]"
        asr = "—" if row.asr is None else f"{row.asr:.1f} [{row.asr_low:.1f}, {row.asr_high:.1f}]"
        table.add_row(f"{row.bias:g}", refused, asr, "chosen" if row is chosen else "")
    return table


def _numbers(given: str) -> list[float]:
    try:
        biases = [float(each) for each in given.split(",")]
    except ValueError:
        raise InputError(f"`biases`: {given!r}: write numbers with commas, such as -4,-2,0") from None
    if not all(math.isfinite(each) and abs(each) <= 100 for each in biases):
        raise InputError(f"`biases`: {given!r}: a bias is from -100 to 100")
    return biases
