"""Data sets cached on disk between runs, found again by what they were made from and mapped into memory."""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, NamedTuple

from datasets import Dataset, concatenate_datasets
from datasets.table import ConcatenationTable, MemoryMappedTable, Table
from filelock import FileLock

from derta.errors import InputError
from derta.files import file_digest, write_json

logger = logging.getLogger(__name__)

_MANIFEST = "cache.json"


class CachedDataset(NamedTuple):
    """A data set that is cached on disk.

    Attributes:
        dataset: Is mapped into memory.
        facts: Hold what was said of it when it was made, as values for JSON.
    """

    dataset: Dataset
    facts: dict[str, Any]


Write = Callable[[Path], tuple[Dataset, dict[str, Any]]]
"""Makes a data set as a file of this name (`datasets` may put the number of a shard into it), and says facts of it."""


def cached(directory: Path, made_from: dict[str, Any], write: Write, name: str, what: str) -> CachedDataset:
    """Return the data set that was made from the same things before, or make it.

    Processes that want the same one make it once: the others wait. It gets its name when it is whole and on disk, so
    one that a kill left half-written is never read.

    Args:
        directory: Holds cached data sets, each in a folder of its own.
        made_from: Holds everything its contents depend on, as values for JSON.
        write: Makes it.
        name: Says whose rows they are, for messages.
        what: Says what the rows are, for messages.

    Raises:
        InputError: The directory can't be written to.
    """
    place = directory / _key(made_from)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with FileLock(directory / f"{place.name}.lock"):
            found = _open(place)
            if found is not None:
                logger.info("%s: %d %s read from %s", name, len(found.dataset), what, place)
                return found
            _write(place, made_from, write)
            made = _open(place)
    except OSError as error:
        raise InputError(
            f"dataset_cache_dir: can't write to {directory}: {error.strerror or error}; give another "
            "--dataset_cache_dir, or none to keep nothing"
        ) from error
    if made is None:
        raise InputError(f"dataset_cache_dir: {place} does not hold what was just written to it")
    logger.info("%s: %d %s kept in %s", name, len(made.dataset), what, place)
    return made


def _key(made_from: Any) -> str:
    return hashlib.sha256(json.dumps(made_from, sort_keys=True, default=repr).encode()).hexdigest()[:32]


def _open(place: Path) -> CachedDataset | None:
    """Map a data set into memory if all of it is there."""
    try:
        manifest = json.loads((place / _MANIFEST).read_text(encoding="utf-8"))
        rows, facts = manifest["rows"], dict(manifest["facts"])
        shards = [Dataset.from_file(str(file)) for file in sorted(place.glob("*.arrow"))]
    except (OSError, ValueError, KeyError, TypeError):  # pyarrow's errors are among these
        return None
    if not shards or sum(map(len, shards)) != rows:
        return None
    return CachedDataset(concatenate_datasets(shards), facts)


def _write(place: Path, made_from: dict[str, Any], write: Write) -> None:
    for left in (place, *place.parent.glob(f"{place.name}.part-*")):
        shutil.rmtree(left, ignore_errors=True)
    draft = Path(mkdtemp(prefix=f"{place.name}.part-", dir=place.parent))
    try:
        dataset, facts = write(draft / "data.arrow")
        for file in draft.iterdir():
            with file.open("rb") as written:
                os.fsync(written.fileno())
        write_json(draft / _MANIFEST, {"rows": len(dataset), "facts": facts, "made_from": made_from})
        draft.rename(place)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def content_digest(dataset: Dataset) -> str:
    """Hash what a data set holds, in its order.

    Equal digests mean equal contents; equal contents that are laid out otherwise may have different ones. Mapped files
    are read, not touched through the map, so that they don't count as this process's memory; those of a data set that
    is kept by `cached` are known by what it was made from.
    """
    digest = hashlib.sha256(str(dataset.features.arrow_schema.remove_metadata()).encode())
    table: Table = dataset.data
    rows = table.blocks if isinstance(table, ConcatenationTable) else [[table]]
    for row in rows:
        digest.update(f"row of {len(row)}".encode())
        for block in row:
            for part in _contents(block):
                digest.update(part)
    if dataset._indices is not None:
        for part in _contents(dataset._indices):
            digest.update(part)
    return digest.hexdigest()


def _contents(block: Any) -> Iterator[Any]:
    """Yield what tells one table from another: a mapped one is its file and what was done to it since."""
    yield f"{block.num_rows} {block.column_names}".encode()
    if isinstance(block, MemoryMappedTable):
        yield repr(block.replays).encode()
        yield (_known_as(Path(block.path)) or file_digest(Path(block.path))).encode()
        return
    for batch in block.to_batches():
        # Serialising leaves out what lies beside a slice.
        yield from (str(batch.num_rows).encode(), batch.serialize())


def _known_as(file: Path) -> str | None:
    """Name the contents of a file by what they were made from, if `cached` keeps it."""
    try:
        made_from = json.loads((file.parent / _MANIFEST).read_text(encoding="utf-8"))["made_from"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return f"kept {file.parent.name}/{file.name}" if _key(made_from) == file.parent.name else None
