"""Large sources: the same rows, messages and digests whether they are kept or read anew."""

import logging
from pathlib import Path
from typing import Any, cast

import pytest
from datasets import Dataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from derta.data import cached_source, load_triples, mix
from derta.data.cached_source import Loaded, load_source
from derta.data.triples import Example, as_example, canonical_row
from derta.errors import InputError
from tests.conftest import WriteLines
from tests.data.test_sources import CONVERSATION, HELPFUL, SWAPPED, TRIPLE
from tests.data.test_triples import examples

ROWS = [TRIPLE, HELPFUL, {**HELPFUL, "harmful_prefix": "Turn"}, CONVERSATION, {**TRIPLE, "chosen": None}]


@pytest.fixture(autouse=True)
def _keep_small_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cached_source, "_MIN_BYTES_TO_CACHE", 1)


@pytest.fixture
def cache_dir(tmp_path: Path) -> Path:
    return tmp_path / "kept"


def never(*args: Any, **options: Any) -> None:
    raise AssertionError("read again")


def count(cache_dir: Path) -> int:
    return len(list(cache_dir.glob("*.arrow")))


def test_rows_are_counted_by_what_they_hold(write_rows: WriteLines) -> None:
    loaded = load_source(str(write_rows(ROWS)))
    assert (len(loaded.rows), loaded.harmful, loaded.helpful) == (5, 2, 2)


def contents(loaded: Loaded) -> list[Example]:
    return [as_example(row) for row in loaded.rows]


def test_kept_rows_are_those_that_are_read(
    write_rows: WriteLines, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(write_rows(ROWS))
    anew = load_source(path)
    assert not anew.rows.cache_files
    assert contents(anew) == [as_example(row) for row in load_triples(path)]
    first = load_source(path, cache_dir=cache_dir)
    monkeypatch.setattr(cached_source, "read_examples", never)
    for loaded in (first, load_source(path, cache_dir=cache_dir)):
        assert loaded.rows.cache_files, "it is held in memory"
        assert contents(loaded) == contents(anew)
        assert loaded.digest == anew.digest
    assert contents(first)[3].origin == f"{path}:4"


@given(drawn=st.lists(examples(), min_size=1, max_size=6), chunk=st.integers(1, 3))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_examples_are_kept_as_they_are(
    drawn: list[Example], chunk: int, write_rows: WriteLines, cache_dir: Path
) -> None:
    rows = list(map(canonical_row, drawn))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("derta.data.arrow._CHUNK", chunk)
        patch.setattr("derta.data.polarity.Polarity.check", lambda *args, **options: None)
        read = [load_source(str(write_rows(rows)), cache_dir=place) for place in (None, cache_dir)]
    assert all(contents(loaded) == contents(read[0]) for loaded in read)
    assert len({loaded.digest for loaded in read}) == 1


def test_the_digest_is_that_of_the_examples_in_their_order(write_rows: WriteLines) -> None:
    orders = [ROWS, ROWS[::-1], ROWS[1:], [*ROWS, TRIPLE], [TRIPLE, {**HELPFUL, "chosen": "Io"}, *ROWS[2:]]]
    digests = {load_source(str(write_rows(rows))).digest for rows in orders}
    assert len(digests) == len(orders)
    assert load_source(str(write_rows(ROWS, "elsewhere.jsonl"))).digest in digests


CHANGES = ["content", "name", "schema", "swap", "version"]


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_source_is_read_again(
    change: str, write_rows: WriteLines, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_rows([SWAPPED, HELPFUL] if change == "swap" else [TRIPLE, HELPFUL])
    options: dict[str, Any] = {}
    if change == "swap":
        monkeypatch.setattr("derta.data.polarity.Polarity.check", lambda *args, **options: None)
    load_source(str(path), cache_dir=cache_dir)
    if change == "content":
        path.write_text(path.read_text().replace("Io", "Ia"))
    elif change == "name":
        path = path.rename(path.with_name("renamed.jsonl"))
    elif change == "schema":
        options = {"schema": "preference"}
    elif change == "swap":
        options = {"swap": True}
    elif change == "version":
        monkeypatch.setattr(cached_source, "READING_VERSION", 10**6)
    found = load_source(str(path), cache_dir=cache_dir, **options)
    assert count(cache_dir) == 2
    assert contents(found) == contents(load_source(str(path), **options))


def test_what_was_noted_is_told_each_time(
    write_rows: WriteLines, cache_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_rows(
        [TRIPLE, TRIPLE, {**SWAPPED, "chosen": "Push.", "rejected": "Sorry, never."}, {**HELPFUL, "mood": "fine"}]
    )
    told = []
    for place in (None, cache_dir, cache_dir):
        load_source(str(path), cache_dir=place)
        told.append([record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING])
        caplog.clear()
    assert len(told[0]) == 2
    assert told[0] == told[1] == told[2]


def test_a_bad_row_is_named_by_its_line_and_nothing_is_kept(write_rows: WriteLines, cache_dir: Path) -> None:
    path = write_rows([TRIPLE, HELPFUL, {**HELPFUL, "chosen": " "}])
    for _ in range(2):
        with pytest.raises(InputError, match=r"rows.jsonl:3: chosen is empty"):
            load_source(str(path), cache_dir=cache_dir)
    with pytest.raises(InputError, match="look swapped"):
        load_source(str(write_rows([SWAPPED])), cache_dir=cache_dir)
    assert not count(cache_dir)


def test_a_file_that_changes_while_it_is_read_is_not_kept(
    write_rows: WriteLines, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, write = write_rows([TRIPLE, HELPFUL]), cast(Any, cached_source).write_dataset

    def meanwhile(*args: Any) -> Dataset:
        with path.open("a") as file:
            file.write("\n")
        return write(*args)

    monkeypatch.setattr(cached_source, "write_dataset", meanwhile)
    with pytest.raises(InputError, match=r"rows.jsonl: changed while it was read; run the command again"):
        load_source(str(path), cache_dir=cache_dir)
    assert not count(cache_dir)


def test_a_saved_data_set_is_known_by_its_contents(
    tmp_path: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "saved"
    Dataset.from_list([TRIPLE, HELPFUL]).save_to_disk(path)
    first = load_source(str(path), cache_dir=cache_dir)
    assert first.rows["origin"] == [f"{path}:1", f"{path}:2"]
    with monkeypatch.context() as patch:
        patch.setattr(cached_source, "read_examples", never)
        assert contents(load_source(str(path), cache_dir=cache_dir)) == contents(first)
    path.rename(tmp_path / "old")
    Dataset.from_list([HELPFUL, TRIPLE]).save_to_disk(path)
    assert load_source(str(path), cache_dir=cache_dir).rows["prompt"] == first.rows["prompt"][::-1]


def test_small_sources_are_not_kept(write_rows: WriteLines, cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_rows([TRIPLE])
    monkeypatch.setattr(cached_source, "_MIN_BYTES_TO_CACHE", path.stat().st_size + 1)
    load_source(str(path), cache_dir=cache_dir)
    assert not cache_dir.exists()


def test_kept_sources_are_mixed_by_index(write_rows: WriteLines, cache_dir: Path) -> None:
    large = [
        load_source(str(write_rows([row] * 6, f"{i}.jsonl")), cache_dir=cache_dir).rows for i, row in enumerate(ROWS)
    ]
    small = load_triples([TRIPLE] * 4)
    mixed = mix([*large, small], ratios=[1] * (len(large) + 1))
    assert len(mixed) == 4 * len(ROWS) + 4
    assert len(mixed.cache_files) == len(large)
    in_memory = [load_triples(dataset) for dataset in large]
    again = mix([*in_memory, small], ratios=[1] * (len(large) + 1))
    assert [as_example(row) for row in mixed] == [as_example(row) for row in again]
