"""File formats: a file in, its rows out, each with the line it stands on."""

import codecs
import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple, NoReturn, cast

from derta.data.sniffing import looks_like
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
        InputError: the file can't be read, or (through `on_problem`) one of its rows can't.
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
            yield from _read_json(path, on_problem)
        else:
            mend = _seems(path) or f"{did_you_mean(extension, EXTENSIONS)}; one of {', '.join(EXTENSIONS)}"
            raise InputError(f"{_name(path)}: unknown extension {printable(extension)!r}{mend}")
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or printable(first_line(error))
        raise InputError(f"{_name(path)}: can't be read: {reason}{_seems(path)}") from None


def data_extension(path: Path) -> str:
    """Return the extension that says what a file holds, below one that says how it is compressed."""
    return Path(path.stem if path.suffix.lower() in COMPRESSED else path.name).suffix.lower()


def _name(path: Path) -> str:
    return printable(str(path))


def _seems(path: Path) -> str:
    """Say what the file looks like, after a message that doesn't."""
    seeming = printable(looks_like(path))
    return seeming and f"; {seeming}"


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
            f"save the file as UTF-8{_seems(path) if number == 1 else ''}"
        ) from None


def _parse(text: str, path: Path, number: int) -> Any:
    try:
        return json.loads(text, object_pairs_hook=unique_keys)
    except json.JSONDecodeError as error:
        mend = (number == 1 and _seems(path)) or "; each line must hold one JSON object"
        raise InputError(f"{_name(path)}:{number}: malformed JSON at column {error.colno}: {error.msg}{mend}") from None
    except (ValueError, RecursionError) as error:  # a key twice, thousands of digits, brackets nested without end
        raise InputError(f"{_name(path)}:{number}: JSON can't be read: {error}") from None


def _object(value: Any, path: Path, number: int) -> Row:
    if not isinstance(value, dict):
        mend = _seems(path) if number == 1 else ""
        raise InputError(f"{_name(path)}:{number}: a row must be a JSON object, not {type_name(value)}{mend}")
    return Row(f"{_name(path)}:{number}", value)


def _read_json_lines(path: Path, on_problem: OnProblem) -> Iterator[Row]:
    for number, line in _lines(path):
        try:
            text = _decode(line, path, number)
            if text.strip():
                yield _object(_parse(text, path, number), path, number)
        except InputError as error:
            on_problem(error)


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


def _read_json(path: Path, on_problem: OnProblem) -> Iterator[Row]:
    """Read one document, an array of rows or `{"data": [rows]}`, a row at a time to know each row's line."""
    text = "".join(_decode(line, path, number) for number, line in _lines(path))
    document = _Document(text, path)
    nested = document.peek() == "{"
    if nested:
        document.enter_data()
    if document.peek() not in ("[", ""):
        raise InputError(f'{_name(path)}: must hold an array of rows, {{"data": [rows]}} or one object a line')
    for value, number in document.items():
        try:
            yield _object(value, path, number)
        except InputError as error:
            on_problem(error)
    if nested:
        document.expect(",}")
    elif document.peek():
        raise document.malformed("the document ends before this")


class _Document:
    """A position in a JSON document, and the line it is on."""

    def __init__(self, text: str, path: Path) -> None:
        self.text, self.path = text, path
        self.at, self.line = 0, 1
        self._decoder = json.JSONDecoder(object_pairs_hook=unique_keys)

    def peek(self) -> str:
        """Return the next character that isn't white space, or an empty string at the end."""
        while self.at < len(self.text) and self.text[self.at] in " \t\r\n":
            self.line += self.text[self.at] == "\n"
            self.at += 1
        return self.text[self.at : self.at + 1]

    def expect(self, characters: str) -> str:
        """Step over one of `characters`, which must come next."""
        found = self.peek()
        if not found or found not in characters:
            raise self.malformed(f"expected {' or '.join(characters)}")
        self.at += 1
        return found

    def value(self) -> Any:
        """Step over the next value and return it."""
        self.peek()
        try:
            value, end = self._decoder.raw_decode(self.text, self.at)
        except json.JSONDecodeError as error:
            self.line += self.text.count("\n", self.at, error.pos)
            self.at = error.pos
            raise self.malformed(error.msg) from None
        except (ValueError, RecursionError) as error:
            raise InputError(f"{_name(self.path)}:{self.line}: JSON can't be read: {error}") from None
        self.line += self.text.count("\n", self.at, end)
        self.at = end
        return value

    def enter_data(self) -> None:
        """Go to the value of the outermost object's `data`."""
        separator = self.expect("{")
        while separator != "}":
            key = self.value()
            self.expect(":")
            if key == "data" and self.peek() == "[":
                return
            self.value()
            separator = self.expect(",}")
        raise InputError(f"{_name(self.path)}: an object without a list 'data'; put the rows into an array")

    def items(self) -> Iterator[tuple[Any, int]]:
        """Yield the items of the array that comes next, with the line each begins on."""
        if not self.peek():
            return
        separator = self.expect("[")
        if self.peek() == "]":
            separator = self.expect("]")
        while separator != "]":
            self.peek()
            number = self.line
            yield self.value(), number
            separator = self.expect(",]")

    def malformed(self, message: str) -> InputError:
        column = self.at - self.text.rfind("\n", 0, self.at)
        return InputError(f"{_name(self.path)}:{self.line}: malformed JSON at column {column}: {message}; repair it")


def _read_table(path: Path, delimiter: str, on_problem: OnProblem) -> Iterator[Row]:
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
                yield Row(f"{_name(path)}:{start}", dict(zip(header, cells, strict=True)))
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


def _read_parquet(path: Path) -> Iterator[Row]:
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
                    yield Row(f"{_name(path)}:{number}", values)
    except InputError:
        raise
    # Python has no dates of all the years that Parquet has.
    except (pa.ArrowException, UnicodeDecodeError, OverflowError, ValueError) as error:
        raise InputError(
            f"{_name(path)}: not a Parquet file that can be read: {printable(str(error))}{_seems(path)}"
        ) from None
