"""`derta data check`: counts, lengths, truncation, duplicates, and every problem by file and line."""

import json
import math
import sys
from argparse import ArgumentParser, Namespace
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from derta.data.polarity import first_words, reads_like_refusal
from derta.data.schemas import SCHEMAS
from derta.data.sources import Notes, read_examples
from derta.data.targets import Responses, find_targets
from derta.data.triples import Example
from derta.errors import InputError
from derta.redaction import printable
from derta.terminal import screen

_SHOWN_PROBLEMS = 20
_SHOWN_OPENINGS = 8
_REFUSAL_TEXT = "Sorry"  # the default of `refusal_text`
_KINDS = ("triples", "helpful examples", "safe responses after a fixed prefix", "harmful responses for RTO only")
_FIELDS = ("prompt", "chosen", "rejected")


class Measured(NamedTuple):
    """Lengths of an example.

    Attributes:
        lengths: Those of prompt, chosen and rejected.
        cut: How many tokens were cut off to fit.
        unknown: How many tokens stand for text that the tokenizer doesn't know.
        control: A control token of the model's that stands in a text, if one does.
    """

    lengths: Sequence[int]
    cut: int = 0
    unknown: int = 0
    control: str = ""


Measure = Callable[[Example], Measured]


@dataclass
class _Duplicates:
    """Remembers examples by hash: of whole examples, and of the prompts of triples and of helpful examples."""

    exact: int = 0
    first_exact: str = ""
    contradictory: int = 0
    first_contradictory: str = ""
    _examples: dict[int, str] = field(default_factory=dict)
    _prompts: tuple[dict[int, str], dict[int, str]] = field(default_factory=lambda: ({}, {}))

    def add(self, example: Example) -> None:
        prompt = hash(tuple((message["role"], message["content"]) for message in example.prompt))
        known = self._examples.setdefault(
            hash((prompt, example.chosen, example.rejected, example.harmful_prefix)), example.origin
        )
        if known is not example.origin:
            self.exact += 1
            self.first_exact = self.first_exact or f"{example.origin} repeats {known}"
        if not example.is_triple and not example.is_helpful:
            return
        own, other = self._prompts if example.is_triple else self._prompts[::-1]
        if prompt not in own:
            own[prompt] = example.origin
            if prompt in other:
                self.contradictory += 1
                self.first_contradictory = self.first_contradictory or f"{example.origin} and {other[prompt]}"

    def lines(self) -> list[str]:
        lines = []
        if self.exact:
            lines.append(f"{_counted(self.exact, 'exact duplicate')}: {self.first_exact}")
        if self.contradictory:
            lines.append(
                f"{_counted(self.contradictory, 'prompt')} both in a triple and in a helpful example: "
                f"{self.first_contradictory}"
            )
        return lines


@dataclass
class _FileReport:
    """What one file holds."""

    notes: Notes = field(default_factory=Notes)
    kinds: Counter[str] = field(default_factory=Counter)
    lengths: dict[str, "array[int]"] = field(default_factory=lambda: {name: array("q") for name in _FIELDS})
    shortened: int = 0
    tokens_cut: int = 0
    with_unknown: int = 0
    first_unknown: str = ""
    controls: Counter[str] = field(default_factory=Counter)
    first_control: str = ""
    problems: list[str] = field(default_factory=list)
    problem_count: int = 0
    refusals: Counter[str] = field(default_factory=Counter)
    responses: list[Responses] = field(default_factory=list)

    def problem(self, error: InputError) -> None:
        """Take note of a problem; the first ones are kept to be shown."""
        self.problem_count += 1
        if len(self.problems) < _SHOWN_PROBLEMS:
            self.problems.append(printable(str(error)))

    def problem_lines(self) -> list[str]:
        """Return the first problems, and how many more there are."""
        more = self.problem_count - len(self.problems)
        return [*self.problems, *([f"... and {more} more problems"] if more else [])]

    def add(self, example: Example, measure: Measure) -> None:
        """Count and measure one example."""
        lengths, cut, unknown, control = measure(example)
        self.kinds[_kind(example)] += 1
        if example.is_triple and reads_like_refusal(example.chosen or ""):
            self.refusals[first_words(example.chosen or "")] += 1
        self.responses.append(Responses(example.origin, example.chosen, example.rejected))
        if unknown:
            self.with_unknown += 1
            self.first_unknown = self.first_unknown or example.origin
        if control:
            self.controls[control] += 1
            self.first_control = self.first_control or example.origin
        self.shortened += cut > 0
        self.tokens_cut += cut
        for name, length in zip(_FIELDS, lengths, strict=True):
            if length:
                self.lengths[name].append(length)


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what `run` reads."""
    parser.add_argument("files", nargs="*", help="files or dataset names")
    parser.add_argument("--schemas", action="store_true", help="list the columns that are understood, with examples")
    parser.add_argument("--schema", default="auto", help="how to read the columns (default: recognise them)")
    parser.add_argument("--bad-rows", choices=("stop", "skip"), default="stop", help="skip lists and leaves them out")
    parser.add_argument("--swap", action="store_true", help="swap chosen and rejected")
    parser.add_argument("--polarity-checked", action="store_true", help="you read triples: chosen is the safe one")
    parser.add_argument("--model", help="measure lengths in this model's tokens, with its chat template")
    parser.add_argument("--prompt-format", help="named prompt format in place of the model's chat template")
    parser.add_argument("--max-length", type=int, default=1024, help="report what would be shortened beyond this")


def run(args: Namespace) -> int:
    """Print what each file holds and what is wrong with it.

    Returns:
        0, or 2 if there are problems: whatever would stop a training run.
    """
    console = screen.console()
    if args.schemas:
        _print_schemas(console)
        return 0
    if not args.files:
        raise InputError("nothing to check: name files or data sets, or list the --schemas")
    measure = _token_lengths(args.model, args.max_length, args.prompt_format) if args.model else _word_lengths
    duplicates = _Duplicates()
    reports = []
    for name in args.files:
        options = {
            "schema": args.schema,
            "swap": args.swap,
            "bad_rows": args.bad_rows,
            "polarity_checked": args.polarity_checked,
        }
        reports.append(_read(name, measure, duplicates, options))
    # Only now every rejected text is known.
    for number, problem in find_targets([report.responses.__iter__ for report in reports]):
        reports[number].problem(problem)
    count = sum(report.problem_count for report in reports)
    for name, report in zip(args.files, reports, strict=True):
        lines = list(_lines(report, args.max_length)) + (report.problem_lines() if count > 1 else [])
        _print_report(console, name, report, lines, unit="tokens" if args.model else "words")
    for line in duplicates.lines():
        console.print(Text(line), soft_wrap=True)
    if not count:
        return 0
    first = next(report.problems[0] for report in reports if report.problems)
    print(f"derta: error: {first if count == 1 else f'{count} problems, the first: {first}'}", file=sys.stderr)
    return 2


def _print_schemas(console: Console) -> None:
    for schema in SCHEMAS:
        optional = f" (and {', '.join(schema.optional)})" if schema.optional else ""
        console.print(Text.assemble((schema.name, "bold"), f": {schema.about}"), soft_wrap=True)
        console.print(Text(f"  columns {', '.join(schema.required)}{optional}"), soft_wrap=True)
        for row in schema.example:
            console.print(Text(f"  {json.dumps(row, ensure_ascii=False)}"), soft_wrap=True)
    console.print(
        Text("A Python file with a SCHEMA (derta.data.schemas.Schema) adds one: --schema FILE.py."), soft_wrap=True
    )


def _read(name: str, measure: Measure, duplicates: _Duplicates, options: dict[str, Any]) -> _FileReport:
    report = _FileReport()
    try:
        for example in read_examples(name, report.notes, **options, on_problem=report.problem):
            duplicates.add(example)
            try:
                report.add(example, measure)
            except InputError as error:
                report.problem(error)
    except InputError as error:
        report.problem(error)
    return report


def _kind(example: Example) -> str:
    if example.is_triple:
        return _KINDS[0]
    if example.is_helpful:
        return _KINDS[1]
    return _KINDS[2] if example.chosen is not None else _KINDS[3]


def _word_lengths(example: Example) -> Measured:
    prompt = sum(len(message["content"].split()) for message in example.prompt)
    harmful = example.rejected or example.harmful_prefix or ""
    return Measured((prompt, len((example.chosen or "").split()), len(harmful.split())))


def _token_lengths(model: str, max_length: int, prompt_format: str | None) -> Measure:
    from derta.generation.loading import load_tokenizer
    from derta.tokens.encoder import Encoder, unknown_tokens
    from derta.tokens.prompt_formats import set_prompt_format

    tokenizer = load_tokenizer(model)
    set_prompt_format(tokenizer, prompt_format)
    encoder = Encoder(tokenizer, max_length)
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    controls = {*map(str, tokenizer.all_special_tokens), *(token.content for token in added if token.special)}

    def measure(example: Example) -> Measured:
        encoded = encoder(example)
        lengths = (len(encoded.prompt), len(encoded.chosen), len(encoded.rejected))
        turns = [message["content"] for message in example.prompt]
        text = "\n".join([*turns, *filter(None, [example.chosen, example.rejected, example.harmful_prefix])])
        control = next((token for token in controls if token in text), "")
        return Measured(lengths, encoded.num_truncated, unknown_tokens(encoded, tokenizer), control)

    return measure


def _lines(report: _FileReport, max_length: int) -> Iterator[str]:
    yield from report.notes.lines()
    if report.refusals:
        total, common = report.refusals.total(), report.refusals.most_common(_SHOWN_OPENINGS)
        shown = ", ".join(f"{printable(words)!r} {count}" for words, count in common)
        yield f"{_counted(total, 'refusal')} of triples begin with: {shown}"
        begin = sum(count for words, count in report.refusals.items() if words.startswith(_REFUSAL_TEXT))
        if 2 * begin < total:
            yield (
                f"only {begin:,} of them begin with {_REFUSAL_TEXT!r}, which RTO teaches at every position: name what "
                f"they share as refusal_text, or rewrite them: derta data convert --refusal '{_REFUSAL_TEXT},'"
            )
    if report.shortened:
        cut = _counted(report.tokens_cut, "token")
        yield f"{_counted(report.shortened, 'example')} shortened to {max_length} tokens, by {cut} in all"
    if report.controls:
        yield (
            f"{_counted(report.controls.total(), 'example')} with a control token of the model's in a text "
            f"({', '.join(report.controls)}), first at {report.first_control}: it would end a turn or begin one; "
            f"take it out"
        )
    if report.with_unknown:
        yield (
            f"{_counted(report.with_unknown, 'example')} with text that the tokenizer turns into unknown tokens, "
            f"first at {report.first_unknown}: the model can't learn it; see them with derta data show"
        )


def _print_report(console: Console, name: str, report: _FileReport, lines: Sequence[str], *, unit: str) -> None:
    title = printable(name) + (f" ({report.notes.schema})" if report.notes.schema else "")
    console.print(Text(title, style="bold"), soft_wrap=True)
    if report.kinds:
        console.print(_table(report, unit))
    for line in lines:
        console.print(Text(line), soft_wrap=True)
    console.print()


def _table(report: _FileReport, unit: str) -> Table:
    table = Table("", "examples", f"median {unit}", "95 %", "max")
    for column in table.columns[1:]:
        column.justify = "right"
    for kind in _KINDS:
        if report.kinds[kind]:
            table.add_row(kind, f"{report.kinds[kind]:,}")
    table.add_section()
    for name, lengths in report.lengths.items():
        if lengths:
            ordered = sorted(lengths)
            ranks = (math.ceil(share * len(ordered)) - 1 for share in (0.5, 0.95, 1.0))
            table.add_row(name, f"{len(ordered):,}", *(f"{ordered[rank]:,}" for rank in ranks))
    return table


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
