"""Examples in Arrow, in one physical form: prompt and responses are TRL's messages in every row."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from derta.data.schemas.recognition import check_verdicts, verdicts_among
from derta.data.targets import check_targets
from derta.data.triples import Example, Message, as_example

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

COLUMNS = ("prompt", "chosen", "rejected", "harmful_prefix", "origin")
_CHUNK = 10_000  # rows held as Python objects at a time


def as_dataset(examples: Iterable[Example]) -> "Dataset":
    """Return examples as a `Dataset` in memory."""
    import pyarrow as pa
    from datasets import Dataset

    return Dataset(pa.concat_tables([_schema().empty_table(), *_tables(examples)]))


def write_dataset(path: Path, examples: Iterable[Example]) -> "Dataset":
    """Write examples to an Arrow file as they come, and map it into memory."""
    import pyarrow as pa
    from datasets import Dataset

    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, _schema()) as writer:
        for table in _tables(examples):
            writer.write_table(table)
    return Dataset.from_file(str(path))


def canonical(dataset: "Dataset", name: str) -> "Dataset":
    """Return a data set in the columns that `load_triples` gives: itself, if it has them.

    Args:
        dataset: Canonical rows, or rows in TRL's forms.
        name: Name of the data set, for the origins of rows that have none.

    Raises:
        InputError: A row is no example, or learns what is `rejected` in another.
    """
    if dataset.data.schema.remove_metadata() == _schema():
        return dataset
    if "completion" in dataset.column_names and "chosen" not in dataset.column_names:
        dataset = dataset.rename_column("completion", "chosen")
    verdicts = verdicts_among(sorted(set(dataset.column_names) - set(COLUMNS)))

    def examples() -> Iterator[Example]:
        for index, row in enumerate(dataset.with_format(None)):
            check_verdicts(row, verdicts, f"{name} row {index}", "training")
            if row.get("messages") and "chosen" not in row:
                # TRL's conversations: the last turn is the answer to learn.
                *prompt, answer = row.pop("messages")
                row |= {"prompt": prompt, "chosen": [answer]}
            yield as_example(row, str(row.get("origin") or f"{name} row {index}"))

    made = as_dataset(examples())
    check_targets([made])
    return made


def examples_of(columns: Mapping[str, Sequence[Any]]) -> Iterator[Example]:
    """Yield the rows of a canonical data set, given as columns, as examples."""
    for prompt, chosen, rejected, prefix, origin in zip(*(columns[name] for name in COLUMNS), strict=True):
        yield Example(prompt, chosen and chosen[0]["content"], rejected and rejected[0]["content"], prefix, origin)


def _schema() -> "pa.Schema":
    import pyarrow as pa

    text: Any = pa.string()
    messages = pa.list_(pa.struct([("role", text), ("content", text)]))
    return pa.schema([(name, text if name in ("harmful_prefix", "origin") else messages) for name in COLUMNS])


def _tables(examples: Iterable[Example]) -> "Iterator[pa.Table]":
    import pyarrow as pa

    rest = iter(examples)
    while chunk := list(islice(rest, _CHUNK)):
        responses = ([_response(each.chosen) for each in chunk], [_response(each.rejected) for each in chunk])
        texts = ([each.harmful_prefix for each in chunk], [each.origin for each in chunk])
        columns = [_message_lists(lists) for lists in ([each.prompt for each in chunk], *responses)]
        yield pa.table([*columns, *(pa.array(column, pa.string()) for column in texts)], schema=_schema())


def _response(text: str | None) -> list[Message] | None:
    return None if text is None else [{"role": "assistant", "content": text}]


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
