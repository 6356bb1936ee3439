"""`derta show`: one transcript of an evaluation, as the model saw it and as it was judged."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from rich.text import Text

from derta.errors import InputError, did_you_mean
from derta.evaluation.results.sample import Sample
from derta.evaluation.results.store import load_evaluation
from derta.evaluation.results.verdict import Verdict
from derta.redaction import printable
from derta.terminal import screen


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what `run` reads."""
    parser.add_argument("directory", type=Path, metavar="D", help="directory of an evaluation")
    parser.add_argument("--id", required=True, help="the behaviour's id")
    parser.add_argument("--variant", help="attack or variant, such as prefill@5 (default: all)")


def run(args: Namespace) -> int:
    """Print the transcripts of one behaviour with their verdicts.

    Raises:
        InputError: The directory holds no responses, or none to this behaviour.
    """
    samples = load_evaluation(args.directory).samples
    found = [each for each in samples if each.id == args.id and args.variant in (None, each.variant, each.attack)]
    if not found:
        near = did_you_mean(args.id, {each.id for each in samples})
        under = f" under {args.variant}" if args.variant else ""
        raise InputError(f"`id`: {args.directory} has no response to {args.id!r}{under}{near}")
    console = screen.console()
    for sample in found:
        console.print(Text(printable(f"{sample.variant}, {sample.kind} prompt: {sample.prompt}"), style="bold"))
        console.print(Text(_transcript(sample)), soft_wrap=True)
        for judge, verdict in sample.verdicts.items():
            console.print(Text(printable(f"{judge}: {_verdict(sample, verdict)}"), style="italic"), soft_wrap=True)
    return 0


def _transcript(sample: Sample) -> str:
    turns = [f"{message['role']}: {message['content']}" for message in sample.messages or []]
    given = [f"raw text: {sample.raw}"] if sample.raw is not None else turns
    begun = f"[begun for the model: {sample.prefix}]" if sample.prefix else ""
    lines = [*given, f"model: {begun}{sample.continuation}"]
    return "\n".join(printable(part) for line in lines for part in line.split("\n"))


def _verdict(sample: Sample, verdict: Verdict) -> str:
    facts: list[str] = [verdict.label]
    if sample.broken:
        facts.append(f"broken: {sample.broken}")
    if verdict.leaked_tokens:
        facts.append(f"{verdict.leaked_tokens} harmful tokens before a refusal")
    if verdict.reason:
        facts.append(verdict.reason)
    return ", ".join(facts)
