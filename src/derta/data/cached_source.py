"""Large sources: read once, cached as canonical rows by their content, and mapped into memory from then on."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from derta.data.arrow import as_dataset, write_dataset
from derta.data.sources import BadRows, Notes, Source, log_notes, open_source, read_examples
from derta.data.triples import Example
from derta.errors import InputError
from derta.files import file_digest, read_json, write_json
from derta.terminal import screen

if TYPE_CHECKING:
    from datasets import Dataset

# Raise it with every change that gives a source other rows, other notes or other digests.
READING_VERSION = 3

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

        absent = (pc.is_null(self.rows.data.column(name)) for name in ("rejected", "harmful_prefix"))
        return int(pc.sum(pc.and_(*absent)).as_py() or 0)


def load_source(
    source: str,
    *,
    schema: str = "auto",
    swap: bool = False,
    bad_rows: BadRows = "stop",
    polarity_checked: bool = False,
    cache_dir: Path | None = None,
) -> Loaded:
    """Read one source as `load_triples` does; a large one is read once, and mapped into memory ever after.

    Args:
        source: File, data set on the hub, or directory that `Dataset.save_to_disk` wrote.
        schema: How to read the columns.
        swap: Whether to swap `chosen` and `rejected` of triples.
        bad_rows: Whether to stop at the first bad row or to skip them, up to a tenth of all.
        polarity_checked: As for `load_triples`.
        cache_dir: Where the rows of large sources are cached; without it they are in memory.

    Raises:
        InputError: As `load_triples`; or the rows can't be cached.
    """
    opened, notes, digest = open_source(source), Notes(), ExamplesDigest()

    def examples() -> Iterator[Example]:
        found = read_examples(
            opened, notes, schema=schema, swap=swap, bad_rows=bad_rows, polarity_checked=polarity_checked
        )
        with screen.bar(f"reading {opened.name}") as advance:
            for number, example in enumerate(found, 1):
                digest.add(example)
                yield example
                if number % _ROWS_PER_MOVE == 0:
                    advance(_ROWS_PER_MOVE)

    if cache_dir is None or _size(opened) < _MIN_BYTES_TO_CACHE:
        rows = as_dataset(examples())
        log_notes(opened.name, notes.lines())
        return Loaded(rows, digest.hexdigest())

    from datasets import Dataset
    from filelock import FileLock

    content = _content(opened)
    made_from = {
        "reading": READING_VERSION,
        "content": content,
        "name": opened.name,  # the rows' origins have it
        "schema": Path(schema).read_text("utf-8") if schema.endswith(".py") else schema,
        "swap": swap,
        "bad_rows": bad_rows,
        "polarity_checked": polarity_checked,
    }
    place = cache_dir / f"{hashlib.sha256(json.dumps(made_from).encode()).hexdigest()[:32]}.arrow"
    facts_file, draft = place.with_suffix(".json"), place.with_suffix(".part")
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        # Processes that want the same rows read them once: the others wait.
        with FileLock(place.with_suffix(".lock")):
            if not place.exists():
                write_dataset(draft, examples())
                if _content(opened) != content:
                    raise InputError(f"{opened.name}: changed while it was read; run the command again")
                write_json(facts_file, {"digest": digest.hexdigest(), "notes": list(notes.lines())})
                # Last, so that rows with this name are whole and have their facts.
                draft.replace(place)
            facts = read_json(facts_file)
    except OSError as error:
        raise InputError(
            f"dataset_cache_dir: can't write to {cache_dir}: {error.strerror or error}; give another "
            "--dataset_cache_dir, or none to keep nothing"
        ) from error
    rows = Dataset.from_file(str(place))
    log_notes(opened.name, facts["notes"])
    return Loaded(rows, facts["digest"])


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
    if isinstance(source.stored, Path):
        return file_digest(source.stored)
    assert source.stored is not None
    return str(source.stored._fingerprint)
