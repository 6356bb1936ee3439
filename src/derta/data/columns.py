"""Canonical columns: examples in, a `datasets.Dataset` out."""

import hashlib
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from derta.data.triples import Example, as_example, canonical_row

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

COLUMNS = ("prompt", "chosen", "rejected", "harmful_prefix", "origin")
_CHUNK = 10_000  # rows held as Python objects at a time


def as_dataset(examples: Iterable[tuple[Example, bool]]) -> "Dataset":
    """Return examples, each with whether it is to be conversational, as a `Dataset` in memory.

    All rows are conversational if one of them is. `harmful_prefix` is left out where no example has one.
    """
    import pyarrow as pa
    from datasets import Dataset

    chunks, kinds = [], []
    for chunk in _chunks(iter(examples)):
        kinds.append(any(conversational for _, conversational in chunk))
        chunks.append(_table((example for example, _ in chunk), conversational=kinds[-1]))
    if any(kinds) and not all(kinds):
        chunks = [
            chunk if conversational else _table(map(as_example, chunk.to_pylist()), conversational=True)
            for chunk, conversational in zip(chunks, kinds, strict=True)
        ]
    table = pa.concat_tables(chunks) if chunks else _table((), conversational=False)
    if table["harmful_prefix"].null_count == len(table):
        table = table.drop_columns("harmful_prefix")
    return Dataset(table, fingerprint=_fingerprint(table))


def _chunks(items: Iterator[tuple[Example, bool]]) -> Iterator[list[tuple[Example, bool]]]:
    while chunk := list(islice(items, _CHUNK)):
        yield chunk


def _fingerprint(table: "pa.Table") -> str:
    """Hash the contents in place; `Dataset` itself would pickle a copy of them."""
    content = hashlib.blake2b(str(table.schema).encode(), digest_size=8)
    for column in table.columns:
        for chunk in column.chunks:
            for buffer in filter(None, chunk.buffers()):
                content.update(buffer)
    return content.hexdigest()


def _table(examples: Iterable[Example], *, conversational: bool) -> "pa.Table":
    import pyarrow as pa

    text: Any = pa.string()
    message = pa.struct([("role", text), ("content", text)])
    body = pa.list_(message) if conversational else text
    schema = pa.schema([(name, text if name in ("harmful_prefix", "origin") else body) for name in COLUMNS])
    return pa.Table.from_pylist([canonical_row(e, conversational=conversational) for e in examples], schema=schema)
