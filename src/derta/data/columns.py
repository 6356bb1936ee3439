"""Canonical columns: examples in, a `datasets.Dataset` out."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from derta.data.triples import Example, Message, as_example, canonical_row

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

COLUMNS = ("prompt", "chosen", "rejected", "harmful_prefix", "origin")
_CHUNK = 10_000  # rows held as Python objects at a time

_T = TypeVar("_T")


def as_dataset(examples: Iterable[tuple[Example, bool]]) -> "Dataset":
    """Return examples, each with whether it is to be conversational, as a `Dataset` in memory.

    All rows are conversational if one of them is. `harmful_prefix` is left out where no example has one.
    """
    import pyarrow as pa
    from datasets import Dataset

    chunks, kinds = [], []
    for chunk in _chunks(iter(examples)):
        kinds.append(any(conversational for _, conversational in chunk))
        chunks.append(_table([example for example, _ in chunk], conversational=kinds[-1]))
    if any(kinds) and not all(kinds):
        chunks = [
            chunk if conversational else _table([*map(as_example, chunk.to_pylist())], conversational=True)
            for chunk, conversational in zip(chunks, kinds, strict=True)
        ]
    table = pa.concat_tables(chunks) if chunks else _table((), conversational=False)
    if table["harmful_prefix"].null_count == len(table):
        table = table.drop_columns("harmful_prefix")
    return Dataset(table, fingerprint=_fingerprint(table))


def write_dataset(path: Path, examples: Iterable[Example]) -> "Dataset":
    """Write examples to an Arrow file as they come, in all columns and conversational, and map it into memory."""
    import pyarrow as pa
    from datasets import Dataset

    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, _schema(conversational=True)) as writer:
        for chunk in _chunks(iter(examples)):
            writer.write_table(_table(chunk, conversational=True))
    return Dataset.from_file(str(path))


def is_canonical(dataset: "Dataset", *, conversational: bool) -> bool:
    """Whether a data set has canonical columns and no others, all of them in one form."""
    schema, columns = _schema(conversational=conversational), set(dataset.column_names)
    types = {field.name: field.type for field in dataset.features.arrow_schema}
    required = set(COLUMNS) - {"harmful_prefix"}
    return required <= columns <= set(COLUMNS) and all(types[name] == schema.field(name).type for name in columns)


def _chunks(items: Iterator[_T]) -> Iterator[list[_T]]:
    while chunk := list(islice(items, _CHUNK)):
        yield chunk


def _fingerprint(table: "pa.Table") -> str:
    """Hash the contents in place; `Dataset` itself would pickle a copy of them."""
    content = hashlib.sha256(str(table.schema).encode())
    for column in table.columns:
        for chunk in column.chunks:
            for buffer in filter(None, chunk.buffers()):
                content.update(buffer)
    return content.hexdigest()[:16]


def _schema(*, conversational: bool) -> "pa.Schema":
    import pyarrow as pa

    text: Any = pa.string()
    body = pa.list_(pa.struct([("role", text), ("content", text)])) if conversational else text
    return pa.schema([(name, text if name in ("harmful_prefix", "origin") else body) for name in COLUMNS])


def _table(examples: Sequence[Example], *, conversational: bool) -> "pa.Table":
    import pyarrow as pa

    schema = _schema(conversational=conversational)
    rows = [canonical_row(example, conversational=conversational) for example in examples]
    columns = {name: [row[name] for row in rows] for name in COLUMNS}
    return pa.table(
        [
            pa.array(values, pa.string()) if schema.field(name).type == pa.string() else _message_lists(values)
            for name, values in columns.items()
        ],
        schema=schema,
    )


def _message_lists(lists: "Sequence[Sequence[Message] | None]") -> "pa.Array":
    """Lists of messages as Arrow lays them out; several times faster than letting it look at each message."""
    import pyarrow as pa

    messages = [message for some in lists for message in some or ()]
    fields = [pa.array([message[name] for message in messages], pa.string()) for name in ("role", "content")]
    return pa.ListArray.from_arrays(
        pa.array(accumulate((len(some or ()) for some in lists), initial=0), pa.int32()),
        pa.StructArray.from_arrays(fields, names=["role", "content"]),
        mask=pa.array([some is None for some in lists], pa.bool_()),
    )
