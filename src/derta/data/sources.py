"""Sources: a file, a `datasets` name or rows in memory in, canonical examples out."""

import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from derta.data.arrow import as_dataset
from derta.data.polarity import Polarity
from derta.data.readers import (
    EXTENSIONS,
    OnProblem,
    Row,
    data_extension,
    read_file,
    stop_at_problem,
)
from derta.data.schemas.recognition import (
    check_columns,
    check_row,
    check_verdicts,
    fitting,
    named_schema,
    recognised,
    verdicts_among,
)
from derta.data.schemas.schema import Read, Schema, Skipped
from derta.data.targets import check_targets
from derta.data.triples import Example, as_example, type_name
from derta.errors import InputError, did_you_mean, first_line
from derta.redaction import printable

if TYPE_CHECKING:
    from datasets import Dataset

_LOG = logging.getLogger(__name__)
_DATASET_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")

BadRows = Literal["stop", "skip"]
"""What to do about rows that can't be read: stop at the first, or leave them out and list them."""

# Where more rows are bad than this share, the file isn't what it was taken for.
BAD_ROWS_SHARE = 0.1
_ROWS_TO_RECOGNISE = 100  # of a file whose first rows may be bad


@dataclass
class Notes:
    """What a reading recognised, left out or found odd.

    Attributes:
        schema: name of the schema that the columns fit.
        skipped: how many rows the schema had no use for, by reason.
        columns: columns that nothing is known about, in the order they appeared; they are ignored.
        polarity: which responses read like refusals.
        groups: where rows say that they come from (`source` or `dataset`), by their origins.
        rows: how many rows were read, bad ones too.
        bad_rows: what is wrong with those left out.
    """

    schema: str = ""
    skipped: Skipped = field(default_factory=Counter)
    columns: dict[str, None] = field(default_factory=dict)
    polarity: Polarity = field(default_factory=Polarity)
    groups: dict[str, str] = field(default_factory=dict)
    rows: int = 0
    bad_rows: list[str] = field(default_factory=list)

    def leave_out(self, error: InputError) -> None:
        """Take note of a bad row."""
        self.bad_rows.append(printable(str(error)))

    def lines(self) -> Iterator[str]:
        """Say each thing in a line."""
        if self.skipped.total():
            reasons = ", ".join(f"{count} {reason}" for reason, count in self.skipped.most_common() if count)
            yield f"skipped {self.skipped.total()} of its rows: {reasons}"
        if self.columns:
            yield f"ignored unknown columns {', '.join(repr(column[:40]) for column in self.columns)}"
        yield from self.polarity.lines()
        if self.bad_rows:
            yield f"left out {len(self.bad_rows)} bad of {self.rows} rows:"
            yield from (f"  {problem}" for problem in self.bad_rows)


class Source(NamedTuple):
    """What rows are read from.

    Attributes:
        name: for messages.
        read: begins to read its rows.
        stored: the file or the data set that holds the rows; `None` for rows in memory.
    """

    name: str
    read: Read
    stored: "Path | Dataset | None" = None


def load_triples(
    source: "str | os.PathLike[str] | Dataset | Sequence[Any]",
    *,
    schema: str | Schema = "auto",
    split: str = "train",
    swap: bool = False,
    bad_rows: BadRows = "stop",
    polarity_checked: bool = False,
) -> "Dataset":
    """Read training data, recognise its columns and return them in canonical form.

    Logs what it leaves out: rows that the schema has no use for, and columns that nothing is known about.

    Args:
        source: a file (JSONL, JSON, CSV, TSV, Parquet; the texts also as .gz or .zst), the name of a data set on the
            hub, a directory that `Dataset.save_to_disk` wrote, a `Dataset` or `DatasetDict`, a list of rows, or a list
            of any of these but rows.
        schema: how to read the columns: a name, a Python file with a `SCHEMA`, or one itself; "auto" recognises them.
        split: which split of a `datasets` name or of a `DatasetDict` to read.
        swap: swap `chosen` and `rejected` of triples.
        bad_rows: "stop" at the first bad row, or "skip" them, up to a tenth of all.
        polarity_checked: somebody read triples of a source in which no response reads like a refusal.

    Returns:
        A `Dataset` with the columns `prompt`, `chosen`, `rejected`, `harmful_prefix` and `origin` ("file:line" or
        "name:row"). Prompt and responses are TRL's messages; `rejected` is None in a helpful example.

    Raises:
        InputError: the source can't be read, a row isn't an example, the data are an evaluation set, `chosen` and
            `rejected` look swapped, or a text that is `rejected` in one row would be learnt in another.
    """

    def examples() -> Iterator[Example]:
        for one in _several(source):
            notes = Notes()
            yield from read_examples(
                one,
                notes,
                schema=schema,
                split=split,
                swap=swap,
                bad_rows=bad_rows,
                polarity_checked=polarity_checked,
            )
            log_notes(_name_of(one), notes.lines())

    dataset = as_dataset(examples())
    check_targets([dataset])
    return dataset


def _several(source: Any) -> list[Any]:
    """Return the sources in `source`: a list of rows is one, a list of anything else is many."""
    if not isinstance(source, list | tuple):
        return [source]
    if not source:
        raise InputError("data: an empty list; it needs rows, files or names")
    return [source] if isinstance(source[0], Mapping) and not _has_splits(source[0]) else list(source)


def _has_splits(source: Mapping[str, Any]) -> bool:
    """Whether `source` is a `DatasetDict` rather than a row."""
    import datasets

    return isinstance(source, datasets.DatasetDict)


def log_notes(name: str, lines: Iterable[str]) -> None:
    """Tell what was noted when a source was read."""
    for line in lines:
        _LOG.warning("%s: %s", name, line)


def read_examples(
    source: Any,
    notes: Notes,
    *,
    schema: str | Schema = "auto",
    split: str = "train",
    swap: bool = False,
    bad_rows: BadRows = "stop",
    polarity_checked: bool = False,
    on_problem: OnProblem = stop_at_problem,
) -> Iterator[Example]:
    """Yield the examples of one source; then check their polarity.

    Args:
        source: as for `load_triples`, but one of them; or what `open_source` returns.
        notes: takes what is left out.
        schema: how to read the columns.
        split: which split of a `datasets` name to read.
        swap: swap `chosen` and `rejected` of triples.
        bad_rows: with "skip", `notes` takes the rows that aren't examples, up to a tenth of all.
        polarity_checked: as for `load_triples`.
        on_problem: what to do about everything else that is wrong; by default its `InputError` is raised.

    Raises:
        InputError: the source can't be read, or through `on_problem`.
    """
    name, read, _ = source if isinstance(source, Source) else open_source(source, split)
    on_bad_row = notes.leave_out if _checked(bad_rows) == "skip" else on_problem
    layout = _layout(read, schema, name, on_bad_row, patient=bad_rows == "skip")
    notes.schema = layout.name
    count = 0
    for row in layout.adapt(_checking_rows(read, layout, notes, schema == "auto"), notes.skipped, on_bad_row):
        try:
            example = as_example(_swapped(row.values) if swap else row.values, row.origin)
        except InputError as error:
            on_bad_row(error)
            continue
        count += 1
        notes.polarity.add(example, notes.groups.get(row.origin, ""))
        yield example
    for problem in _problems_of_the_whole(name, notes, count, swap=swap, polarity_checked=polarity_checked):
        on_problem(problem)


def _problems_of_the_whole(
    name: str, notes: Notes, count: int, *, swap: bool, polarity_checked: bool
) -> Iterator[InputError]:
    """Yield what is wrong with a source of which every row was read."""
    if len(notes.bad_rows) > BAD_ROWS_SHARE * notes.rows:
        yield InputError(
            f"{name}: {len(notes.bad_rows)} of {notes.rows} rows are bad, more than {BAD_ROWS_SHARE:.0%}: it is not "
            f"what it was taken for; the first: {notes.bad_rows[0]}"
        )
    elif not count:
        yield InputError(f"{name}: none of its rows can be trained on")
    try:
        notes.polarity.check(name, swap=swap, checked=polarity_checked)
    except InputError as error:
        yield error


def _checked(bad_rows: str) -> str:
    if bad_rows not in ("stop", "skip"):
        raise InputError(f"`bad_rows` must be stop or skip, not {bad_rows[:40]!r}{did_you_mean(bad_rows, ('skip',))}")
    return bad_rows


def _swapped(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Swap the responses of a triple; a row with one response keeps it."""
    if values.get("chosen") is None or values.get("rejected") is None:
        return values
    return {**values, "chosen": values["rejected"], "rejected": values["chosen"]}


def _layout(read: Read, schema: str | Schema, name: str, on_bad_row: OnProblem, *, patient: bool) -> Schema:
    """Recognise the schema by the first row that can be read; patiently, by the first that has one."""
    if isinstance(schema, Schema):
        return schema
    rows = list(islice(read(lambda error: None), _ROWS_TO_RECOGNISE if patient else 1))
    if not rows:
        problems: list[InputError] = []
        list(read(problems.append))
        for problem in problems:
            on_bad_row(problem)
        raise InputError(f"{name}: {'no row can be read' if problems else 'is empty; it needs at least one row'}")
    if schema != "auto":
        return named_schema(schema)
    return recognised(next((row for row in rows if patient and fitting(row.values)), rows[0]))


def _checking_rows(read: Read, schema: Schema, notes: Notes, recognise: bool) -> Read:
    """Check the columns of every row, as rows of JSON may differ in them, and whether it has another schema."""

    def checked(on_problem: OnProblem) -> Iterator[Row]:
        fine: dict[tuple[str, ...], list[str]] = {}
        notes.rows = 0

        def count_problem(error: InputError) -> None:
            notes.rows += 1
            on_problem(error)

        for row in read(count_problem):
            notes.rows += 1
            columns = tuple(map(str, row.values))
            try:
                if recognise:
                    check_row(schema, row)
                if columns not in fine:
                    unknown = check_columns(schema, columns, row.origin)
                    fine[columns] = verdicts_among(unknown)
                    notes.columns.update(dict.fromkeys(unknown))
                if verdicts := fine[columns]:
                    check_verdicts(row.values, verdicts, row.origin, f"schema {schema.name}")
            except InputError as error:
                on_problem(error)
                continue
            group = row.values.get("source") or row.values.get("dataset")
            if isinstance(group, str):
                notes.groups[row.origin] = group
            yield row

    return checked


def _name_of(source: Any) -> str:
    return printable(os.fspath(source)) if isinstance(source, str | os.PathLike) else "rows in memory"


def open_source(source: Any, split: str = "train") -> Source:
    """Find what `source` is: a file, a `datasets` name or directory, or rows in memory.

    Raises:
        InputError: it is nothing of these.
    """
    name = _name_of(source)
    if isinstance(source, Mapping) and _has_splits(source):
        return open_source(_split_of(source, split, name))
    if not isinstance(source, str | os.PathLike):
        return Source(name, lambda on_problem: _rows_in_memory(source, on_problem))
    path = Path(source)
    try:
        is_directory, exists = path.is_dir(), path.exists()
    except OSError as error:  # a name too long, a directory that may not be searched
        raise InputError(f"{name[:200]}: can't be read: {error.strerror}") from None
    if is_directory:
        dataset = _saved_dataset(path, split)
    elif exists or not isinstance(source, str) or not _may_be_dataset_name(source):
        _must_exist(path)
        return Source(name, lambda on_problem: read_file(path, on_problem), path)
    else:
        dataset = _hub_dataset(source, split)
    return Source(name, _dataset_reader(dataset, name), dataset)


def _rows_in_memory(rows: Any, on_problem: OnProblem) -> Iterator[Row]:
    for number, values in enumerate(rows, start=1):
        if isinstance(values, Mapping):
            yield Row(str(values.get("origin") or f"row:{number}"), dict(values))
        else:
            on_problem(InputError(f"row:{number}: a row must be a mapping, not {type_name(values)}"))


def _dataset_reader(dataset: Any, name: str) -> Read:
    return lambda on_problem: (Row(f"{name}:{n}", values) for n, values in enumerate(dataset, start=1))


def _must_exist(path: Path) -> None:
    if path.is_file():
        return
    if path.exists():  # reading it might never end
        raise InputError(f"{printable(str(path))}: is a pipe or a device; write what comes out of it to a file")
    siblings = [sibling.name for sibling in path.parent.iterdir()] if path.parent.is_dir() else []
    hint = printable(did_you_mean(path.name if path.suffix else f"{path.name}.jsonl", siblings))
    raise InputError(f"{printable(str(path))}: file not found{hint}")


def _may_be_dataset_name(source: str) -> bool:
    """Whether `source`, which is no file, looks like a `datasets` name rather than a path that is mistyped."""
    path = Path(source)
    in_directory = len(path.parts) > 1 and path.parent.is_dir()
    return _DATASET_NAME.fullmatch(source) is not None and data_extension(path) not in EXTENSIONS and not in_directory


def _saved_dataset(path: Path, split: str) -> Any:
    import datasets

    name = printable(str(path))
    if not (path / "dataset_info.json").exists() and not (path / "dataset_dict.json").exists():
        files = sorted(file.name for file in path.iterdir() if data_extension(file) in EXTENSIONS)
        inside = f"its files are {', '.join(map(printable, files[:5]))}" if files else "it holds no data file"
        raise InputError(f"{name}: is a directory; name a file in it ({inside})")
    try:
        dataset = datasets.load_from_disk(str(path))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{name}: can't be read as a saved data set: {printable(first_line(error))}") from None
    return _split_of(dataset, split, name) if isinstance(dataset, datasets.DatasetDict) else dataset


def _split_of(splits: Mapping[str, Any], split: str, name: str) -> Any:
    if split not in splits:
        raise InputError(f"{name}: has no split {split!r}; it has {printable(', '.join(map(str, splits)))}")
    return splits[split]


def _hub_dataset(name: str, split: str) -> Any:
    import datasets

    try:
        return datasets.load_dataset(name, split=split)
    except Exception as error:  # whatever a download or a stranger's files raise, the user can only name another source
        nearby = did_you_mean(name, (file.name for file in Path().iterdir()))
        raise InputError(
            f"{name}: no file{printable(nearby)}, and no data set can be loaded: {printable(first_line(error))}"
        ) from None
