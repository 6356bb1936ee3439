"""The command line: arguments in, one call down, exit code out.

Exit codes: 0 done, 1 a gate was not met, 2 the input or the configuration is wrong, 130 interrupted.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from derta.errors import InputError


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{self.prog}: {message} (see {self.prog} --help)")


def _train(args: argparse.Namespace, rest: Sequence[str]) -> int:
    from derta.training.run import train_command

    return train_command(rest)


def _merge(args: argparse.Namespace, rest: Sequence[str]) -> int:
    from derta.training.merge import merge_adapter

    merge_adapter(args.adapter, args.out)
    return 0


def _data_check(args: argparse.Namespace, rest: Sequence[str]) -> int:
    from derta.data.check import check_command

    return check_command(
        args.files,
        schema=args.schema,
        swap=args.swap,
        model=args.model,
        max_length=args.max_length,
        prompt_format=args.prompt_format,
    )


def _data_convert(args: argparse.Namespace, rest: Sequence[str]) -> int:
    from derta.data.convert import convert_command

    return convert_command(args.files, out=args.out, schema=args.schema, swap=args.swap)


def _data_show(args: argparse.Namespace, rest: Sequence[str]) -> int:
    from derta.training.show import show_command

    return show_command(
        args.file, model=args.model, examples=args.examples, schema=args.schema, swap=args.swap, rest=rest
    )


def _organism_build(args: argparse.Namespace, rest: Sequence[str]) -> int:
    from derta.organism.build import build_command

    return build_command(args.out, seed=args.seed, steps=args.steps)


def _organism_data(args: argparse.Namespace, rest: Sequence[str]) -> int:
    from derta.organism.build import data_command

    return data_command(args.out)


def _eval(args: argparse.Namespace, rest: Sequence[str]) -> int:
    from derta.evaluation.run import eval_command

    return eval_command(
        args.model, behaviours=args.behaviours, attacks=args.attacks, out=args.out, judge=args.judge, limit=args.limit
    )


def _demo(args: argparse.Namespace, rest: Sequence[str]) -> int:
    from derta.demo import demo_command

    return demo_command(args.out, quick=args.quick, seed=args.seed)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="derta", description="Decoupled Refusal Training: tune, measure and show refusal at any position."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)

    # Everything after `train` belongs to the trainer's own parser, --help included.
    train = commands.add_parser("train", help="tune a model from a recipe", add_help=False)
    train.set_defaults(run=_train, takes_rest=True)

    merge = commands.add_parser("merge", help="merge a LoRA adapter into its base model")
    merge.add_argument("--adapter", type=Path, required=True, help="directory with the adapter")
    merge.add_argument("--out", type=Path, required=True, help="directory to write the merged model to")
    merge.set_defaults(run=_merge)

    data = commands.add_parser("data", help="check, convert and show training data")
    data_commands = data.add_subparsers(dest="data_command", required=True, metavar="COMMAND", parser_class=_Parser)

    check = data_commands.add_parser("check", help="count, measure and find problems by file and line")
    check.add_argument("files", nargs="+", help="files or dataset names")
    check.add_argument("--schema", default="auto", help="how to read the columns (default: recognise them)")
    check.add_argument("--swap", action="store_true", help="swap chosen and rejected")
    check.add_argument("--model", help="measure lengths in this model's tokens, with its chat template")
    check.add_argument("--prompt_format", help="named prompt format in place of the model's chat template")
    check.add_argument("--max_length", type=int, default=1024, help="report what would be shortened beyond this")
    check.set_defaults(run=_data_check)

    convert = data_commands.add_parser("convert", help="write data in the canonical form")
    convert.add_argument("files", nargs="+", help="files or dataset names")
    convert.add_argument("--out", type=Path, required=True, help="JSON lines file to write")
    convert.add_argument("--schema", default="auto", help="how to read the columns (default: recognise them)")
    convert.add_argument("--swap", action="store_true", help="swap chosen and rejected")
    convert.set_defaults(run=_data_convert)

    show = data_commands.add_parser("show", help="print examples as a model will be trained on them")
    show.add_argument("file", help="file or dataset name")
    show.add_argument("--model", required=True, help="whose tokenizer and chat template to use")
    show.add_argument("--examples", type=int, default=3, help="how many examples to print")
    show.add_argument("--schema", default="auto", help="how to read the columns (default: recognise them)")
    show.add_argument("--swap", action="store_true", help="swap chosen and rejected")
    show.set_defaults(run=_data_show, takes_rest=True)

    organism = commands.add_parser("organism", help="the embedded miniature world and base model")
    organism_commands = organism.add_subparsers(
        dest="organism_command", required=True, metavar="COMMAND", parser_class=_Parser
    )
    build = organism_commands.add_parser("build", help="train the base weights again from their seed")
    build.add_argument("--out", type=Path, required=True, help="directory to write the base model to")
    build.add_argument("--seed", type=int, default=None, help="default: the seed of the packaged weights")
    build.add_argument("--steps", type=int, default=None, help="default: the steps of the packaged weights")
    build.set_defaults(run=_organism_build)
    organism_data = organism_commands.add_parser("data", help="write the organism's data sets as JSON lines")
    organism_data.add_argument("--out", type=Path, required=True, help="directory to write to")
    organism_data.set_defaults(run=_organism_data)

    evaluate = commands.add_parser("eval", help="attack a model and judge its responses")
    evaluate.add_argument("--model", required=True, help="model or adapter directory, hub name, or 'organism'")
    evaluate.add_argument("--behaviours", default="organism", help="'organism' or a file of prompts")
    evaluate.add_argument("--attacks", default="direct,prefill,completing", help="names, separated by commas")
    evaluate.add_argument("--judge", default=None, help="default: the organism's own judge for its behaviours")
    evaluate.add_argument("--limit", type=int, default=None, help="behaviours of each kind at most")
    evaluate.add_argument("--out", type=Path, required=True, help="directory to write results.json to")
    evaluate.set_defaults(run=_eval)

    demo = commands.add_parser("demo", help="tune the organism with vanilla and derta, evaluate both, report")
    demo.add_argument("--out", type=Path, default=Path("runs/demo"), help="directory to write to")
    demo.add_argument("--seed", type=int, default=1, help="seed of both runs")
    demo.add_argument("--quick", action="store_true", help="fewer steps and behaviours: a smoke test")
    demo.set_defaults(run=_demo)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    try:
        args, rest = _parser().parse_known_args(argv)
        if rest and not getattr(args, "takes_rest", False):
            raise InputError(f"derta {args.command}: unrecognized arguments: {' '.join(rest)}")
        return int(args.run(args, rest))
    except InputError as error:
        print(f"derta: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("derta: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
