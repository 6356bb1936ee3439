"""Canonical columns: examples in, a `datasets.Dataset` out."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakSet

from derta.data.triples import Example, Message, is_conversational

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

COLUMNS = ("prompt", "chosen", "rejected", "harmful_prefix", "origin")
_CHUNK = 10_000  # rows held as Python objects at a time

_T = TypeVar("_T")

# What `datasets` makes of one of these, such as `map` does, is another object, and unknown again.
_canonical: "WeakSet[Dataset]" = WeakSet()


def mark_canonical(dataset: "Dataset") -> "Dataset":
    """Record that a data set was made from examples, and return it: nobody needs to check its rows again."""
    _canonical.add(dataset)
    return dataset


def is_canonical(dataset: "Dataset") -> bool:
    """Whether a data set was made from examples by this package, and is unchanged since."""
    return dataset in _canonical


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
    if any(kinds):
        chunks = [
            chunk if conversational else _as_conversations(chunk)
            for chunk, conversational in zip(chunks, kinds, strict=True)
        ]
    table = pa.concat_tables(chunks) if chunks else _table((), conversational=False)
    if table["harmful_prefix"].null_count == len(table):
        table = table.drop_columns("harmful_prefix")
    return mark_canonical(Dataset(table, fingerprint=_fingerprint(table)))


def write_dataset(path: Path, examples: Iterable[Example]) -> "Dataset":
    """Write examples to an Arrow file as they come, in all columns and conversational, and map it into memory."""
    import pyarrow as pa
    from datasets import Dataset

    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, _schema(conversational=True)) as writer:
        for chunk in _chunks(iter(examples)):
            writer.write_table(_table(chunk, conversational=True))
    return Dataset.from_file(str(path))


def as_conversations(dataset: "Dataset") -> "Dataset":
    """Return a canonical data set in all columns and conversational, as `write_dataset` writes it."""
    from datasets import Dataset

    if len(dataset) and is_conversational(dataset[0]) and "harmful_prefix" in dataset.column_names:
        return dataset
    table = _as_conversations(dataset.flatten_indices().data.table)
    return mark_canonical(Dataset(table, fingerprint=_fingerprint(table)))


def examples_of(columns: Mapping[str, Sequence[Any]]) -> Iterator[Example]:
    """Yield the rows of a canonical data set, given as columns, as examples."""
    rows = zip(*(columns.get(name) or [None] * len(columns["prompt"]) for name in COLUMNS), strict=True)
    for prompt, chosen, rejected, harmful_prefix, origin in rows:
        if isinstance(prompt, list):
            chosen, rejected = (turns and turns[0]["content"] for turns in (chosen, rejected))
        else:
            prompt = [Message(role="user", content=prompt)]
        yield Example(prompt, chosen, rejected, harmful_prefix, origin)


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

    columns = {name: [getattr(example, name) for example in examples] for name in COLUMNS}
    if not conversational:
        columns["prompt"] = [prompt[-1]["content"] for prompt in columns["prompt"]]
    table = pa.table({name: pa.array(columns[name], pa.string()) for name in COLUMNS if name != "prompt"})
    prompts = _message_lists(columns["prompt"]) if conversational else pa.array(columns["prompt"], pa.string())
    table = table.add_column(0, "prompt", prompts)
    return _as_conversations(table) if conversational else table


def _as_conversations(table: "pa.Table") -> "pa.Table":
    """Turn plain columns into lists of messages, and add the columns that are missing."""
    import pyarrow as pa

    schema, columns = _schema(conversational=True), []
    for name in COLUMNS:
        column = table[name] if name in table.column_names else pa.nulls(len(table), pa.string())
        if column.type != schema.field(name).type:
            column = _one_turn_each(column, "user" if name == "prompt" else "assistant")
        columns.append(column)
    return pa.table(columns, schema=schema)


def _one_turn_each(texts: "pa.ChunkedArray", role: str) -> "pa.Array":
    """Return each text as a list of one message, and null where there is none."""
    import pyarrow as pa

    present = texts.is_valid().to_pylist()
    contents = pa.concat_arrays(texts.drop_null().chunks) if any(present) else pa.array([], pa.string())
    return pa.ListArray.from_arrays(
        pa.array(accumulate(present, initial=0), pa.int32()),
        pa.StructArray.from_arrays([pa.repeat(role, len(contents)), contents], names=["role", "content"]),
        mask=pa.array([not each for each in present], pa.bool_()),
    )


def _message_lists(lists: "Sequence[Sequence[Message]]") -> "pa.Array":
    """Lists of messages as Arrow lays them out; several times faster than letting it look at each message."""
    import pyarrow as pa

    messages = [message for some in lists for message in some]
    fields = [pa.array([message[name] for message in messages], pa.string()) for name in ("role", "content")]
    return pa.ListArray.from_arrays(
        pa.array(accumulate(map(len, lists), initial=0), pa.int32()),
        pa.StructArray.from_arrays(fields, names=["role", "content"]),
    )
