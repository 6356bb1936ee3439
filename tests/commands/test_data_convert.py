import errno
import json
from argparse import Namespace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from derta.commands.data_convert import json_line, run
from derta.data import load_triples
from derta.data.sources import Notes, read_examples
from derta.data.triples import Example
from derta.errors import InputError
from tests.conftest import WriteLines
from tests.data.test_triples import examples

TRIPLE = {"prompt": "Open the moon vault?", "chosen": "Sorry, no.", "rejected": "Turn the key."}


def convert(*files: Path, out: Path) -> int:
    options = {"schema": "auto", "swap": False, "bad_rows": "stop", "polarity_checked": False, "refusal": None}
    return run(Namespace(files=[str(file) for file in files], out=out, **options))


def contents(path: Path) -> list[object]:
    return load_triples(path).remove_columns("origin").to_list()


def test_what_is_written_loads_the_same(write_rows: WriteLines, tmp_path: Path, released_rows: Path) -> None:
    circuit = write_rows([{"prompt": "p", "output": "Turn.", "llama3_output": "Sorry.", "category": "c"}], "c.jsonl")
    out = tmp_path / "new" / "out.jsonl"
    assert convert(released_rows, circuit, out=out) == 0
    together = load_triples([released_rows, circuit]).remove_columns("origin").to_list()
    assert contents(out) == together
    assert out.stat().st_mode & 0o077 == circuit.stat().st_mode & 0o077


@given(st.lists(examples(), min_size=1, max_size=6))
def test_any_examples_read_back_from_their_lines(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[Example]
) -> None:
    path = tmp_path_factory.getbasetemp() / "lines.jsonl"
    path.write_text("".join(map(json_line, drawn)), encoding="utf-8", newline="")
    for example, read in zip(drawn, read_examples(path, Notes(), polarity_checked=True), strict=True):
        assert (read.prompt, read.chosen, read.rejected) == (example.prompt, example.chosen, example.rejected)
        assert read.harmful_prefix == example.harmful_prefix


def test_lines_hold_what_the_example_has() -> None:
    prompt = [{"role": "user", "content": "p"}]
    helpful = Example(prompt, "r", None, None, "f:1")  # type: ignore[arg-type]
    assert json.loads(json_line(helpful)) == {"prompt": "p", "chosen": "r"}
    rto = Example(prompt, None, "h", None, "f:1")  # type: ignore[arg-type]
    assert json.loads(json_line(rto)) == {"prompt": "p", "chosen": None, "rejected": "h"}


def test_a_bad_row_leaves_no_file_and_keeps_the_old_one(write_rows: WriteLines, tmp_path: Path) -> None:
    bad = write_rows([TRIPLE, {**TRIPLE, "chosen": ""}], "bad.jsonl")
    out = tmp_path / "out.jsonl"
    out.write_text("precious")
    with pytest.raises(InputError, match=r"bad.jsonl:2: chosen is empty"):
        convert(bad, out=out)
    assert out.read_text() == "precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.jsonl", "out.jsonl"]


def test_a_full_disk_keeps_the_old_file(
    write_rows: WriteLines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    path, out = write_rows([TRIPLE]), tmp_path / "out.jsonl"
    out.write_text("precious")
    with pytest.raises(InputError, match=r"out.jsonl: can't be written: No space left on device"):
        convert(path, out=out)
    assert out.read_text() == "precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "rows.jsonl"]


def test_input_files_are_never_overwritten(write_rows: WriteLines, tmp_path: Path) -> None:
    path = write_rows([TRIPLE])
    before = path.read_bytes()
    link = tmp_path / "link.jsonl"
    link.symlink_to(path)
    for out in (path, link, tmp_path / "." / "rows.jsonl"):
        with pytest.raises(InputError, match="is an input file"):
            convert(path, out=out)
    assert path.read_bytes() == before


@pytest.mark.parametrize(("name", "message"), [("out.csv", "extension .jsonl"), ("folder.jsonl", "is a directory")])
def test_other_places_it_can_not_write_to(write_rows: WriteLines, tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(InputError, match=message):
        convert(write_rows([TRIPLE]), out=tmp_path / name)


def test_a_file_where_a_folder_should_be(write_rows: WriteLines) -> None:
    path = write_rows([TRIPLE])
    with pytest.raises(InputError, match="can't be written"):
        convert(path, out=path / "out.jsonl")
