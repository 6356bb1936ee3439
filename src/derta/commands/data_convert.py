"""`derta data convert`: any data that can be trained on, written as canonical JSON lines."""

import json
import os
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from rich.text import Text

from derta.data.polarity import with_refusal
from derta.data.sources import Notes, read_examples
from derta.data.targets import Responses, find_targets
from derta.data.triples import Example, canonical_row
from derta.errors import InputError
from derta.files import check_apart
from derta.redaction import printable
from derta.terminal import screen


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what `run` reads."""
    parser.add_argument("files", nargs="+", help="files or dataset names")
    parser.add_argument("--out", type=Path, required=True, help="JSON lines file to write")
    parser.add_argument("--schema", default="auto", help="how to read the columns (default: recognise them)")
    parser.add_argument("--bad-rows", choices=("stop", "skip"), default="stop", help="skip lists and leaves them out")
    parser.add_argument("--swap", action="store_true", help="swap chosen and rejected")
    parser.add_argument(
        "--refusal", metavar="PREFIX", help="let the refusals of triples begin with this, e.g. 'Sorry,'"
    )
    parser.add_argument("--polarity-checked", action="store_true", help="you read triples: chosen is the safe one")


def run(args: Namespace) -> int:
    """Write the examples of all files to `out`, which appears only when all of them could be read.

    Raises:
        InputError: a file can't be read, or `out` can't be written or is one of the files.
    """
    files, out = args.files, args.out
    check_out(out, files)
    if args.refusal is not None and not args.refusal.strip():
        raise InputError("`refusal`: is empty; give what refusals are to begin with")
    console = screen.console()
    unfinished = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("w", encoding="utf-8", newline="\n") as file:
            read = [_read(name, args) for name in files]
            for _, problem in find_targets([partial(_responses, examples) for examples, _ in read]):
                raise problem
            for examples, _ in read:
                file.writelines(map(json_line, examples))
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(out)
    except OSError as error:
        raise InputError(f"{printable(str(out))}: can't be written: {error.strerror or error}") from None
    finally:
        with suppress(OSError):
            unfinished.unlink()
    for name, (examples, notes) in zip(files, read, strict=True):
        for line in (f"{len(examples):,} examples ({notes.schema})", *notes.lines()):
            console.print(Text(f"{printable(name)}: {line}"), soft_wrap=True)
    console.print(
        Text(f"wrote {sum(len(examples) for examples, _ in read):,} examples to {printable(str(out))}"), soft_wrap=True
    )
    return 0


def json_line(example: Example) -> str:
    """Return an example as one line of canonical JSON; only an explicit null tells an RTO row's missing `chosen`."""
    row = canonical_row(example)
    del row["origin"]
    kept = {column: value for column, value in row.items() if value is not None or column == "chosen"}
    return json.dumps(kept, ensure_ascii=False) + "\n"


def check_out(out: Path, files: Sequence[str] = ()) -> None:
    """Stop at a place that JSON lines can't be written to.

    Raises:
        InputError: it has another extension, is a directory, or is one of `files`.
    """
    name = printable(str(out))
    if out.suffix.lower() != ".jsonl":
        raise InputError(f"--out: {name}: JSON lines are written; give it the extension .jsonl")
    if out.is_dir():
        raise InputError(f"--out: {name}: is a directory; name a file")
    check_apart(out, map(Path, files), "out")


def _read(name: str, args: Namespace) -> tuple[list[Example], Notes]:
    notes = Notes()
    options = {"schema": args.schema, "swap": args.swap, "bad_rows": args.bad_rows}
    examples = list(read_examples(name, notes, **options, polarity_checked=args.polarity_checked))
    if args.refusal:
        examples = [_rewritten(example, args.refusal) for example in examples]
    return examples, notes


def _rewritten(example: Example, prefix: str) -> Example:
    """Let the refusal of a triple, or of half of one, begin with a prefix."""
    if example.chosen is None or example.is_helpful:
        return example
    return replace(example, chosen=with_refusal(example.chosen, prefix))


def _responses(examples: Iterable[Example]) -> Iterator[Responses]:
    return (Responses(each.origin, each.chosen, each.rejected) for each in examples)
