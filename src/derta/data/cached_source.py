"""Large sources: read once, cached as canonical rows by their content, and mapped into memory from then on."""

import hashlib
import json
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from derta.data.columns import as_dataset, mark_canonical, write_dataset
from derta.data.sources import BadRows, Notes, Source, log_notes, open_source, read_examples
from derta.data.triples import Example
from derta.errors import InputError
from derta.files import file_digest
from derta.terminal import screen

if TYPE_CHECKING:
    from datasets import Dataset

# Raise it with every change that gives a source other rows, other notes or other digests.
READING_VERSION = 2

# Bytes of a source; less is read again sooner than looked up, and takes little memory.
_MIN_BYTES_TO_CACHE = 2**24
_ROWS_PER_MOVE = 100
"""Rows between two moves of a bar."""


class Loaded(NamedTuple):
    """A source's rows.

    Attributes:
        rows: Is a `Dataset` of canonical columns.
        digest: Hashes the examples in their order, wherever and in whatever form they are: their origins don't count.
    """

    rows: "Dataset"
    digest: str

    @property
    def harmful(self) -> int:
        """How many rows have a harmful response."""
        return len(self.rows) - int(self.rows.data.column("rejected").null_count)

    @property
    def helpful(self) -> int:
        """How many rows have none, nor a safe response after the beginning of one."""
        import pyarrow.compute as pc

        columns = [name for name in ("rejected", "harmful_prefix") if name in self.rows.column_names]
        absent = reduce(pc.and_, (pc.is_null(self.rows.data.column(name)) for name in columns))
        return int(pc.sum(absent).as_py() or 0)


def load_source(
    source: str,
    *,
    schema: str = "auto",
    swap: bool = False,
    bad_rows: BadRows = "stop",
    cache_dir: Path | None = None,
) -> Loaded:
    """Read one source as `load_triples` does; a large one is read once, and mapped into memory ever after.

    The rows of a large source are conversational: which form the last of them calls for isn't known when the first is
    written.

    Args:
        source: Names a file, a data set on the hub, or a directory that `Dataset.save_to_disk` wrote.
        schema: Says how to read the columns.
        swap: Swaps `chosen` and `rejected` of triples.
        bad_rows: Says whether to stop at the first bad row or to skip them, up to a tenth of all.
        cache_dir: Caches the rows of large sources; without it they are in memory.

    Raises:
        InputError: As `load_triples`; or the rows can't be cached.
    """
    opened, notes, digest = open_source(source), Notes(), ExamplesDigest()

    def examples() -> Iterator[tuple[Example, bool]]:
        with screen.bar(f"reading {opened.name}") as advance:
            for number, (example, conversational) in enumerate(
                read_examples(opened, notes, schema=schema, swap=swap, bad_rows=bad_rows), 1
            ):
                digest.add(example)
                yield example, conversational
                if number % _ROWS_PER_MOVE == 0:
                    advance(_ROWS_PER_MOVE)

    if cache_dir is None or _size(opened) < _MIN_BYTES_TO_CACHE:
        rows = as_dataset(examples())
        log_notes(opened.name, notes.lines())
        return Loaded(rows, digest.hexdigest())

    from derta.data.cache import cached

    made_from = {
        "reading": READING_VERSION,
        "content": _content(opened),
        "name": opened.name,  # the rows' origins have it
        "schema": Path(schema).read_text("utf-8") if schema.endswith(".py") else schema,
        "swap": swap,
        "bad_rows": bad_rows,
    }

    def write(path: Path) -> "tuple[Dataset, dict[str, Any]]":
        dataset = write_dataset(path, (example for example, _ in examples()))
        if _content(opened) != made_from["content"]:
            raise InputError(f"{opened.name}: changed while it was read; run the command again")
        return dataset, {"digest": digest.hexdigest(), "notes": list(notes.lines())}

    rows, facts = cached(cache_dir, made_from, write, opened.name, "examples")
    log_notes(opened.name, facts["notes"])
    return Loaded(mark_canonical(rows), facts["digest"])


class ExamplesDigest:
    """Hash of examples in their order, without their origins."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, example: Example) -> None:
        """Take the next example."""
        content = (example.prompt, example.chosen, example.rejected, example.harmful_prefix)
        self._hash.update(json.dumps(content).encode() + b"\n")

    def hexdigest(self) -> str:
        """Return the hash of the examples so far."""
        return self._hash.hexdigest()


def _size(source: Source) -> int:
    """Bytes that a source takes on disk; none if it is not there."""
    if source.stored is None:
        return 0
    return source.stored.stat().st_size if isinstance(source.stored, Path) else int(source.stored.data.nbytes)


def _content(source: Source) -> str:
    from derta.data.cache import content_digest

    assert source.stored is not None
    try:
        return file_digest(source.stored) if isinstance(source.stored, Path) else content_digest(source.stored)
    except OSError as error:
        raise InputError(f"{source.name}: can't be read: {error.strerror or error}") from None
