import codecs
import contextlib
import csv
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from derta.data.readers import Row, read_file
from derta.errors import InputError
from derta.redaction import printable

ROWS = [{"prompt": "Wo ist der Mond?\nUnd die Tür?", "chosen": 'Er sagt, "hier".'}, {"prompt": "p", "chosen": "ü,\tb"}]


def table_text(rows: list[dict[str, str]], delimiter: str) -> str:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def lines(rows: list[Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.mark.parametrize(
    ("name", "content", "line_numbers"),
    [
        ("a.jsonl", lines(ROWS), [1, 2]),
        ("a.JSONL", lines(ROWS).replace("\n", "\r\n\r\n"), [1, 3]),
        ("a.jsonl", lines(ROWS).strip(), [1, 2]),
        ("a.json", lines(ROWS), [1, 2]),
        ("a.csv", table_text(ROWS, ","), [2, 4]),
        ("a.tsv", table_text(ROWS, "\t"), [2, 4]),
        ("a.csv", table_text(ROWS, ",").replace("\r\n", "\n\n"), [3, 6]),
    ],
)
@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8], ids=["", "byte-order-mark"])
def test_every_text_format_gives_rows_with_their_lines(
    tmp_path: Path, name: str, content: str, line_numbers: list[int], mark: bytes
) -> None:
    path = tmp_path / name
    path.write_bytes(mark + content.encode())
    assert list(read_file(path)) == [Row(f"{path}:{n}", row) for n, row in zip(line_numbers, ROWS, strict=True)]


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(ROWS),
        json.dumps(ROWS, indent=1),
        json.dumps({"version": [1, {}], "data": ROWS, "more": 1}),
        json.dumps({"data": ROWS}, indent=1),
        f"\n\n[\n\n{json.dumps(ROWS[0])}\n,\n{json.dumps(ROWS[1])}]\n",
    ],
)
@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8], ids=["", "byte-order-mark"])
def test_a_document_gives_rows_with_their_numbers(tmp_path: Path, content: str, mark: bytes) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(mark + content.encode())
    assert list(read_file(path)) == [Row(f"{path}: row {n}", row) for n, row in enumerate(ROWS, start=1)]


def test_parquet(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist(ROWS), path)
    assert list(read_file(path)) == [Row(f"{path}:1", ROWS[0]), Row(f"{path}:2", ROWS[1])]


def test_a_cell_may_be_long(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"prompt\n{'x' * 300_000}\n")
    assert len(next(read_file(path)).values["prompt"]) == 300_000


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"a": 1}\n{"a": }\n', r"a.jsonl:2: malformed JSON at column 7"),
        ("a.jsonl", b'{"a": 1}\n\n{"a": "x', r"a.jsonl:3: malformed JSON at column 7"),
        ("a.jsonl", b'{"a": 1} {"a": 2}\n', r"a.jsonl:1: malformed JSON at column 10"),
        ("a.jsonl", b'[{"a": 1}]\n', r"a.jsonl:1: a row must be a JSON object, not a list"),
        ("a.jsonl", b"3\n", r"a.jsonl:1: a row must be a JSON object, not a number"),
        ("a.jsonl", b'{"a": 1}\n{"a": "\xe9"}\n', r"a.jsonl:2: not UTF-8: byte 0xe9 at offset 7"),
        ("a.jsonl", '{"a": 1}\n'.encode("utf-16"), r"a.jsonl:1: not UTF-8: byte 0xff at offset 0"),
        ("a.jsonl", b"[" * 100_000, r"a.jsonl:1: JSON can't be read"),
        ("a.jsonl", b'{"a": ' + b"9" * 5000 + b"}", r"a.jsonl:1: JSON can't be read"),
        ("a.json", b'[{"a": 1},\n{"a": }]', r"a.json:2: malformed JSON at column 7"),
        ("a.json", b'[{"a": 1}\n{"a": 2}]', r"a.json:2: malformed JSON at column 1"),
        ("a.json", b'[{"a": 1},\n 3]', r"a.json: row 2: a row must be a JSON object, not a number"),
        ("a.json", b'[{"a": 1}', r"a.json:1: malformed JSON at column"),
        ("a.json", b'[{"a": 1}] x', r"a.json:1: malformed JSON at column 12"),
        ("a.json", b'{"data": [{"a": 1}]', r"a.json:1: malformed JSON at column 20"),
        ("a.json", b'{\n"rows": []\n}', r"a.json: must hold an array of rows"),
        ("a.json", b"3", r"a.json: must hold an array of rows"),
        ("a.json", b"[" * 100_000, r"a.json:1: JSON can't be read"),
        ("a.json", b'[\n{"a": "\xe9"}]', r"a.json:2: not UTF-8"),
        ("a.csv", b"a,b\n1,2\n1\n", r"a.csv:3: the row has 1 fields and the header 2"),
        ("a.csv", b'a,b\n"1\n\n",2\n1,2,3\n', r"a.csv:5: the row has 3 fields and the header 2"),
        ("a.csv", b'a,b\n1,2\n"1,2\n3,4\n', r"a.csv:3: malformed row"),
        ("a.csv", b'a,b\n"1"x,2\n', r"a.csv:2: malformed row"),
        ("a.csv", b"a,a\n1,2\n", r"a.csv:1: column 'a' occurs twice"),
        ("a.jsonl", b'{"a": 1}\n{"a": 1, "a": 2}\n', r"a.jsonl:2: .*'a' occurs twice in one object"),
        ("a.json", b'[{"a": 1, "a": 2}]', r"'a' occurs twice in one object"),
        ("a.csv", b"a\n1\n\xe9\n", r"a.csv:3: not UTF-8: byte 0xe9 at offset 0"),
        ("a.tsv", b"a\tb\n1\n", r"a.tsv:2: the row has 1 fields"),
        ("a.parquet", b"PAR1 and nothing", r"a.parquet: not a Parquet file"),
        ("a.parquet", b"", r"a.parquet: not a Parquet file"),
        ("a.jsonn", b"", r"a.jsonn: unknown extension '.jsonn' \(did you mean '.json"),
        ("a", b"", r"a: unknown extension ''; one of .jsonl"),
    ],
)
def test_bad_files_name_their_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        list(read_file(tmp_path / name))
    assert printable(str(caught.value)) == str(caught.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", b'{"a": 1}\nx\n\xff\n3\n{"a": 2}\n'),
        ("a.json", b'[{"a": 1}, 3, [], "x", {"a": 2}]'),
        ("a.csv", b"a\n1\n1,2\n1,2\n1,2\n2\n"),
    ],
)
def test_reading_can_go_on_after_a_bad_row(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    problems: list[InputError] = []
    rows = list(read_file(tmp_path / name, problems.append))
    assert [int(row.values["a"]) for row in rows] == [1, 2]
    assert len(problems) == 3


def test_a_file_that_can_not_be_opened(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="can't be read: No such file"):
        list(read_file(tmp_path / "a.jsonl"))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=3),
    max_leaves=5,
)
OBJECTS = st.lists(st.dictionaries(st.text("abc", min_size=1, max_size=3), VALUES, max_size=3), min_size=1, max_size=4)


@given(OBJECTS, st.sampled_from([None, 0, 2]), st.booleans(), st.booleans())
def test_json_documents_read_as_json_does(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Any], indent: int | None, nested: bool, ascii_only: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    document = {"version": 1, "data": rows} if nested else rows
    path.write_text(json.dumps(document, indent=indent, ensure_ascii=ascii_only), encoding="utf-8", newline="")
    read = list(read_file(path))
    assert [row.values for row in read] == rows


@given(st.binary(max_size=200), st.sampled_from([".jsonl", ".json", ".csv", ".tsv", ".parquet"]))
def test_any_bytes_are_rows_or_an_input_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, extension: str
) -> None:
    path = tmp_path_factory.getbasetemp() / f"bytes{extension}"
    path.write_bytes(content)
    problems: list[InputError] = []
    with contextlib.suppress(InputError):
        assert all(isinstance(row, Row) for row in read_file(path, problems.append))
    assert not any("\n" in str(problem) for problem in problems)


def test_printable_leaves_nothing_that_moves_a_cursor() -> None:
    assert printable("a\n\x1b[2Jé\u202e\ud800b") == r"a\n\x1b[2Jé\u202e\ud800b"
