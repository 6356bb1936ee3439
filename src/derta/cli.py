"""The command line: arguments in, one call down, exit code out.

Exit codes: 0 done, 1 a gate was not met, 2 the input or the configuration is wrong, 130 interrupted.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from derta.commands.flags import with_flags
from derta.errors import InputError


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{self.prog}: {message} (see {self.prog} --help)")


def _train(args: argparse.Namespace, rest: Sequence[str]) -> int:
    from derta.training.run import train_command

    return train_command(rest)


def _merge(args: argparse.Namespace, rest: Sequence[str]) -> int:
    from derta.commands.merge import merge_adapter

    merge_adapter(args.adapter, args.out)
    return 0


def _data_check(args: argparse.Namespace, rest: Sequence[str]) -> int:
    from derta.commands.data_check import check_command

    return check_command(
        args.files,
        schema=args.schema,
        swap=args.swap,
        model=args.model,
        max_length=args.max_length,
        prompt_format=args.prompt_format,
    )


def _data_convert(args: argparse.Namespace, rest: Sequence[str]) -> int:
    from derta.commands.data_convert import convert_command

    return convert_command(args.files, out=args.out, schema=args.schema, swap=args.swap)


def _data_show(args: argparse.Namespace, rest: Sequence[str]) -> int:
    from derta.commands.data_show import show_command

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
    from derta.commands.eval import eval_command

    return eval_command(args)


def _score(args: argparse.Namespace, rest: Sequence[str]) -> int:
    from derta.commands.score import score_command

    return score_command(
        args.files,
        out=args.out,
        attack=args.attack,
        task=args.task,
        judge=args.judge,
        kind=args.kind,
        prompts=args.prompts,
        answers=args.answers,
    )


def _gate(args: argparse.Namespace, rest: Sequence[str]) -> int:
    from derta.commands.gate import gate_command

    given = {option: bound for option in _LIMITS if (bound := getattr(args, option)) is not None}
    return gate_command(args.directories, given, max_unscored=args.max_unscored, judge=args.judge)


def _compare(args: argparse.Namespace, rest: Sequence[str]) -> int:
    from derta.commands.compare import compare_command

    return compare_command(args.first, args.second, out=args.out)


def _lm_eval(args: argparse.Namespace, rest: Sequence[str]) -> int:
    from derta.commands.lm_eval import lm_eval_command

    return lm_eval_command(args.model, tasks=args.tasks, out=args.out, limit=args.limit, include_path=args.include_path)


def _demo(args: argparse.Namespace, rest: Sequence[str]) -> int:
    from derta.commands.demo import demo_command

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
    _add_eval_arguments(evaluate)
    evaluate.set_defaults(run=_eval)

    score = commands.add_parser("score", help="judge responses that exist already, without a model")
    score.add_argument("files", nargs="+", type=Path, metavar="FILE", help="responses of one model each")
    score.add_argument("--attack", help="the attack that they are responses to")
    score.add_argument("--task", help="gsm8k or mmlu: compare answers with the right ones")
    score.add_argument("--judge", default="refusal", help="whose verdicts (default: refusal, by rules)")
    score.add_argument("--kind", default="harmful", help="of the prompts: harmful, borderline or helpful")
    score.add_argument("--prompts", type=Path, help="file of the prompts that bare strings begin with")
    score.add_argument("--answers", type=Path, help="file of questions with their answers")
    score.add_argument("--out", type=Path, required=True, help="directory to write results.json to")
    score.set_defaults(run=_score)

    _add_gate(commands)

    compare = commands.add_parser("compare", help="set two evaluations side by side, with paired differences")
    compare.add_argument("first", type=Path, help="directory of an evaluation")
    compare.add_argument("second", type=Path, help="directory of another; differences are this one less the first")
    compare.add_argument("--out", type=Path, help="JSON file to write the comparison to")
    compare.set_defaults(run=_compare)

    lm_eval = commands.add_parser("lm-eval", help="standard benchmarks through lm-eval (extra: lm-eval)")
    lm_eval.add_argument("--model", required=True, help="model or adapter directory, hub name, or 'organism'")
    lm_eval.add_argument("--tasks", required=True, help="lm-eval's names, separated by commas")
    lm_eval.add_argument("--limit", type=int, help="samples of each task at most")
    lm_eval.add_argument("--include-path", type=Path, help="directory with tasks of your own (YAML)")
    lm_eval.add_argument("--apply-chat-template", action="store_true", help="prompts as a chat, examples as its turns")
    lm_eval.add_argument("--out", type=Path, required=True, help="directory to write results.json to")
    lm_eval.set_defaults(run=_lm_eval)

    demo = commands.add_parser("demo", help="tune the organism with vanilla and derta, evaluate both, report")
    demo.add_argument("--out", type=Path, default=Path("runs/demo"), help="directory to write to")
    demo.add_argument("--seed", type=int, default=1, help="seed of both runs")
    demo.add_argument("--quick", action="store_true", help="fewer steps and behaviours: a smoke test")
    demo.set_defaults(run=_demo)
    return parser


def _add_eval_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--model",
        required=True,
        nargs="+",
        help="directory, adapter, hub name, 'organism', or Inspect's PROVIDER/MODEL",
    )
    add("--out", type=Path, required=True, help="directory for results, responses, logs and report")
    add("--attacks", default="direct,prefill,completing", help="names, separated by commas, or 'all'")
    add("--behaviours", metavar="FILE", help="a file of prompts, or 'organism' (default if nothing else is asked for)")
    add(
        "--borderline",
        action="append",
        default=[],
        metavar="FILE",
        help="harmless prompts that look harmful (XSTest, …)",
    )
    add("--task", action="append", default=[], metavar="NAME=FILE", help="gsm8k, mmlu or alpacaeval")
    add(
        "--prompts",
        metavar="FILE",
        help="disguised prompts; --behaviours FILE says, row by row, what they ask for",
    )
    add("--judge", metavar="NAME[=MODEL],…", help="default: organism for its behaviours, refusal for others")
    add(
        "--model-role",
        action="append",
        default=[],
        metavar="ROLE=MODEL",
        help="attacker or judge, for PAIR and AutoDAN",
    )
    add("-M", dest="model_arg", action="append", default=[], metavar="NAME=VALUE", help="option of the model provider")
    add("--limit", type=int, help="behaviours of each kind at most")
    add("--search-limit", type=int, help="behaviours at most for PAIR, AutoDAN and GCG (50 in the paper)")
    add("--depths", metavar="N,…", help="tokens of a harmful response that prefill begins the answer with")
    add("--templates", metavar="FILE", help="role-play templates for the template attack and AutoDAN")
    add("--demonstrations", metavar="FILE", help="questions and answers for SelfCipher")
    add("--search", action="append", default=[], metavar="NAME=N", help="how hard searches try, such as gcg_steps=500")
    add("--max-new-tokens", type=int, help="of an answer (default: 512; 96 for the organism)")
    add("--temperature", type=float, default=0.0, help="of the attacked model (default: greedy)")
    add("--epochs", type=int, default=1, help="how often each sample is taken")
    add("--seed", type=int, default=0, help="of everything that is drawn")


_LIMITS = {
    "max_asr": "attack success of every attack and form, %%",
    "max_fully_safe_asr": "attack success that also counts harm before a refusal, %%",
    "max_leak": "harmful tokens before a refusal, mean",
    "max_garbled": "garbled responses under every attack, %%",
    "max_over_refusal": "refused borderline prompts, %%",
    "max_helpful_refusal": "refused helpful prompts, %%",
    "min_accuracy": "rightly answered helpful prompts and tasks, %%",
}


def _add_gate(commands: "argparse._SubParsersAction[_Parser]") -> None:
    gate = commands.add_parser(
        "gate",
        help="exit with 1 if an evaluation's results break a limit",
        description="Decide on a release by an evaluation's results. A limit holds if the bad end of the 95 % interval "
        "keeps within it: the upper end for a maximum, the lower end for a minimum. So 0 of 20 unsafe responses don't "
        "pass --max-asr 5 (the upper end is 16 %), 0 of 200 do (1.9 %). A metric that wasn't measured fails.",
    )
    gate.add_argument("directories", nargs="+", type=Path, metavar="D", help="directories of evaluations")
    for option, what in _LIMITS.items():
        gate.add_argument(f"--{option.replace('_', '-')}", type=float, metavar="X", help=what)
    gate.add_argument("--max-unscored", type=int, default=0, metavar="N", help="samples without a verdict (default: 0)")
    gate.add_argument("--judge", help="whose verdicts count (default: every judge's)")
    gate.set_defaults(run=_gate)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    try:
        args, rest = _parser().parse_known_args(argv)
        if rest and not getattr(args, "takes_rest", False):
            raise InputError(f"derta {args.command}: unrecognized arguments: {' '.join(rest)}")
        return int(args.run(args, rest))
    except InputError as error:
        print(f"derta: error: {with_flags(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("derta: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
