"""File formats: a file in, its rows out, each with its place. Every command reads its files here."""

import codecs
import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple, NoReturn, cast

from derta.data.triples import type_name
from derta.errors import InputError, did_you_mean, first_line
from derta.files import unique_keys
from derta.redaction import printable

EXTENSIONS = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
COMPRESSED = (".gz", ".zst")

OnProblem = Callable[[InputError], None]
"""What to do about a bad row: `stop_at_problem`, or take note and go on with the next row."""


class Row(NamedTuple):
    """One row as it stands in a source."""

    origin: str
    values: dict[str, Any]


def stop_at_problem(error: InputError) -> NoReturn:
    """Raise the first problem: what every reader does unless it is told otherwise."""
    raise error


def read_file(path: Path, on_problem: OnProblem = stop_at_problem) -> Iterator[Row]:
    """Yield the rows of a file, one at a time as far as its format allows.

    Raises:
        InputError: The file can't be read, or (through `on_problem`) one of its rows can't.
    """
    for origin, value in read_values(path, on_problem):
        if isinstance(value, dict):
            yield Row(origin, value)
        else:
            on_problem(InputError(f"{origin}: a row must be a JSON object, not {type_name(value)}"))


def read_values(path: Path, on_problem: OnProblem = stop_at_problem) -> Iterator[tuple[str, Any]]:
    """Yield what stands in each row of a file, whatever it is, with its place: "file:line", in an array "file: row n".

    Raises:
        InputError: The file can't be read, or (through `on_problem`) one of its rows can't.
    """
    extension = data_extension(path)
    try:
        if extension in (".csv", ".tsv"):
            yield from _read_table(path, "\t" if extension == ".tsv" else ",", on_problem)
        elif extension == ".parquet":
            yield from _read_parquet(path)
        elif extension == ".jsonl" or (extension == ".json" and _has_json_lines(path)):
            yield from _read_json_lines(path, on_problem)
        elif extension == ".json":
            yield from _read_json(path)
        else:
            mend = f"{did_you_mean(extension, EXTENSIONS)}; one of {', '.join(EXTENSIONS)}"
            raise InputError(f"{_name(path)}: unknown extension {printable(extension)!r}{mend}")
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or printable(first_line(error))
        raise InputError(f"{_name(path)}: can't be read: {reason}") from None


def data_extension(path: Path) -> str:
    """Return the extension that says what a file holds, below one that says how it is compressed."""
    return Path(path.stem if path.suffix.lower() in COMPRESSED else path.name).suffix.lower()


def _name(path: Path) -> str:
    return printable(str(path))


def _open(path: Path) -> IO[bytes]:
    """Open a file, decompressed."""
    if path.suffix.lower() == ".gz":
        return cast(IO[bytes], gzip.open(path))
    if path.suffix.lower() == ".zst":
        import pyarrow as pa

        return io.BufferedReader(pa.input_stream(str(path), compression="zstd"))
    return path.open("rb")


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield numbered lines, a byte order mark taken off."""
    with _open(path) as file:
        for number, line in enumerate(file, start=1):
            yield number, line.removeprefix(codecs.BOM_UTF8) if number == 1 else line


def _decode(line: bytes, path: Path, number: int) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise InputError(
            f"{_name(path)}:{number}: not UTF-8: byte 0x{line[error.start]:02x} at offset {error.start} of the line; "
            f"save the file as UTF-8"
        ) from None


def _parse(text: str, path: Path, line: int, mend: str) -> Any:
    """Parse JSON that begins on a line of a file."""
    try:
        return json.loads(text, object_pairs_hook=unique_keys)
    except json.JSONDecodeError as error:
        place = f"{_name(path)}:{line + error.lineno - 1}"
        raise InputError(f"{place}: malformed JSON at column {error.colno}: {error.msg}; {mend}") from None
    except (ValueError, RecursionError) as error:  # a key twice, thousands of digits, brackets nested without end
        raise InputError(f"{_name(path)}:{line}: JSON can't be read: {error}") from None


def _read_json_lines(path: Path, on_problem: OnProblem) -> Iterator[tuple[str, Any]]:
    for number, line in _lines(path):
        try:
            text = _decode(line, path, number).rstrip("\r\n")
            value = _parse(text, path, number, "each line must hold one JSON object") if text.strip() else None
        except InputError as error:
            on_problem(error)
            continue
        if text.strip():
            yield f"{_name(path)}:{number}", value


def _has_json_lines(path: Path) -> bool:
    """Whether a `.json` file holds one object a line, as the DeRTa release's do, rather than one document."""
    for _, line in _lines(path):
        if line.strip():
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):
                return False
            return isinstance(value, dict) and not isinstance(value.get("data"), list)
    return False


def _read_json(path: Path) -> Iterator[tuple[str, Any]]:
    """Read one document, an array of rows or `{"data": [rows]}`."""
    text = "".join(_decode(line, path, number) for number, line in _lines(path))
    if not text.strip():
        return
    document = _parse(text, path, 1, "repair it")
    rows = document.get("data") if isinstance(document, dict) else document
    if not isinstance(rows, list):
        raise InputError(f'{_name(path)}: must hold an array of rows, {{"data": [rows]}} or one object a line')
    for number, value in enumerate(rows, start=1):
        yield f"{_name(path)}: row {number}", value


def _read_table(path: Path, delimiter: str, on_problem: OnProblem) -> Iterator[tuple[str, Any]]:
    csv.field_size_limit(2**31 - 1)  # the default stops at 128 KiB, which a long response exceeds
    reader = csv.reader((_decode(line, path, n) for n, line in _lines(path)), delimiter=delimiter, strict=True)
    header: list[str] = []
    start = 1
    try:
        for cells in reader:
            if not header:
                header = cells
                _check_header(header, path)
            elif len(cells) == len(header):
                yield f"{_name(path)}:{start}", dict(zip(header, cells, strict=True))
            elif cells:
                on_problem(
                    InputError(
                        f"{_name(path)}:{start}: the row has {len(cells)} fields and the header {len(header)}; "
                        f"quote fields that hold the delimiter or a line break"
                    )
                )
            start = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{_name(path)}:{start}: malformed row: {error}; check its quotation marks") from None


def _check_header(header: list[str], path: Path) -> None:
    twice = [name for name in header if header.count(name) > 1]
    if twice:
        raise InputError(f"{_name(path)}:1: column {twice[0]!r} occurs twice; rename one of them")


def _read_parquet(path: Path) -> Iterator[tuple[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.suffix.lower() in COMPRESSED:
        raise InputError(f"{_name(path)}: Parquet is compressed inside; decompress the file around it")
    number = 0
    try:
        with pq.ParquetFile(path) as file:
            _check_header(file.schema_arrow.names, path)
            for batch in file.iter_batches(batch_size=1000):
                for values in batch.to_pylist():
                    number += 1
                    yield f"{_name(path)}:{number}", values
    except InputError:
        raise
    # Python has no dates of all the years that Parquet has.
    except (pa.ArrowException, UnicodeDecodeError, OverflowError, ValueError) as error:
        raise InputError(f"{_name(path)}: not a Parquet file that can be read: {printable(str(error))}") from None
