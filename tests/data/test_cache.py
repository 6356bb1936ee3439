"""Data sets kept on disk: made once, whole or not at all, told apart by content."""

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, concatenate_datasets

from derta.data import cache
from derta.data.cache import CachedDataset, Write, cached, content_digest
from derta.errors import InputError

ROWS = {"text": ["a", "b", "c", "d"], "number": [1, 2, 3, None]}
FACTS = {"notes": ["odd"]}


def write(path: Path) -> tuple[Dataset, dict[str, Any]]:
    return Dataset.from_dict(ROWS).map(lambda row: row, cache_file_name=str(path)), FACTS


def keep(directory: Path, made_from: dict[str, Any], write: Write = write) -> CachedDataset:
    return cached(directory, made_from, write, "data", "rows")


def never(path: Path) -> tuple[Dataset, dict[str, Any]]:
    raise AssertionError("made again")


def fork(work: Callable[[], object]) -> int:
    process = os.fork()
    if not process:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return process


def test_made_once_and_told_apart_by_what_it_was_made_from(tmp_path: Path) -> None:
    first = keep(tmp_path, {"length": 1})
    for kept in (first, keep(tmp_path, {"length": 1}, never)):
        assert kept.dataset.to_dict() == ROWS
        assert kept.dataset.cache_files, "it is held in memory"
        assert kept.facts == FACTS
    with pytest.raises(AssertionError, match="made again"):
        keep(tmp_path, {"length": 2}, never)


def test_a_kill_while_it_is_written_leaves_nothing_that_is_read(tmp_path: Path) -> None:
    def killed(path: Path) -> tuple[Dataset, dict[str, Any]]:
        write(path)  # even whole files are not the data set before it is known that all are there
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    _, status = os.waitpid(fork(lambda: keep(tmp_path, {}, killed)), 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert list(tmp_path.rglob("*.arrow"))
    made = []
    assert keep(tmp_path, {}, lambda path: made.append(path) or write(path)).dataset.to_dict() == ROWS
    assert made
    assert not list(tmp_path.glob("*.part-*"))


def test_an_error_while_it_is_written_leaves_nothing(tmp_path: Path) -> None:
    def fails(path: Path) -> tuple[Dataset, dict[str, Any]]:
        write(path)
        raise InputError("row 3 is bad")

    with pytest.raises(InputError, match="row 3 is bad"):
        keep(tmp_path, {}, fails)
    assert not list(tmp_path.rglob("*.arrow"))


def tear(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


@pytest.mark.parametrize(("name", "damage"), [("data.arrow", tear), ("data.arrow", Path.unlink), ("cache.json", tear)])
def test_a_damaged_one_is_made_again(tmp_path: Path, name: str, damage: Callable[[Path], object]) -> None:
    keep(tmp_path, {})
    (file,) = tmp_path.rglob(name)
    damage(file)
    with pytest.raises(AssertionError, match="made again"):
        keep(tmp_path, {}, never)
    assert keep(tmp_path, {}).dataset.to_dict() == ROWS


def test_processes_that_want_the_same_make_it_once(tmp_path: Path) -> None:
    def slowly(path: Path) -> tuple[Dataset, dict[str, Any]]:
        with (tmp_path / "made").open("a") as log:
            log.write("once\n")
        time.sleep(0.3)
        return write(path)

    processes = [fork(lambda: keep(tmp_path / "kept", {}, slowly)) for _ in range(3)]
    assert [os.waitpid(process, 0)[1] for process in processes] == [0, 0, 0]
    assert (tmp_path / "made").read_text() == "once\n"
    assert keep(tmp_path / "kept", {}, never).dataset.to_dict() == ROWS


def test_a_directory_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"dataset_cache_dir: can't write to .*file"):
        keep(tmp_path / "file", {})


def test_digest_tells_contents_apart() -> None:
    whole = Dataset.from_dict(ROWS)
    changed = [
        Dataset.from_dict({**ROWS, "text": ["a", "b", "c", "e"]}),
        Dataset.from_dict({**ROWS, "number": [1, 2, None, 3]}),
        whole.select(range(3)),
        whole.select(range(1, 4)),
        whole.select([0, 1, 3, 2]),
        whole.rename_column("text", "words"),
        whole.remove_columns("number"),
        concatenate_datasets([whole, whole]),
    ]
    digests = {content_digest(dataset) for dataset in [whole, *changed]}
    assert len(digests) == 1 + len(changed)
    assert content_digest(Dataset.from_dict(ROWS)) == content_digest(whole)
    later = whole.select(range(1, 4))
    assert content_digest(later) == content_digest(Dataset.from_dict(later.to_dict(), features=later.features))


def test_digest_of_mapped_files_is_that_of_their_contents(tmp_path: Path) -> None:
    one, _ = write(tmp_path / "one.arrow")
    shutil.copy(tmp_path / "one.arrow", tmp_path / "two.arrow")
    two = Dataset.from_file(str(tmp_path / "two.arrow"))
    assert content_digest(one) == content_digest(two)
    views = [
        one, one.select(range(2)), one.select(range(2, 4)), one.select([1, 0]), one.rename_column("text", "words"),
        concatenate_datasets([one, two]), concatenate_datasets([one, Dataset.from_dict(ROWS)]),
    ]  # fmt: skip
    assert len({content_digest(view) for view in views}) == len(views)
    changed = (tmp_path / "two.arrow").read_bytes().replace(b"abcd", b"abce")
    (tmp_path / "three.arrow").write_bytes(changed)
    three = Dataset.from_file(str(tmp_path / "three.arrow"))
    assert three["text"][3] == "e"
    assert content_digest(three) != content_digest(one)


def test_digest_of_a_kept_one_is_what_it_was_made_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = (keep(tmp_path, {"length": length}).dataset for length in (1, 2))
    views = [one, other, one.select(range(2)), one.select([1, 0]), concatenate_datasets([one, other])]
    with monkeypatch.context() as patch:
        patch.setattr(cache, "file_digest", None)  # the files aren't read
        digests = [content_digest(view) for view in views]
    assert len(set(digests)) == len(views)
    assert content_digest(keep(tmp_path, {"length": 1}, never).dataset) == digests[0]
    # A folder that says so isn't one that `cached` keeps.
    (folder,) = (Path(file["filename"]).parent for file in one.cache_files)
    copy = Path(shutil.copytree(folder, tmp_path / "copy")) / "data.arrow"
    shutil.copy(copy, tmp_path / "same.arrow")
    copy.write_bytes(copy.read_bytes().replace(b"abcd", b"abce"))
    changed, same = (Dataset.from_file(str(file)) for file in (copy, tmp_path / "same.arrow"))
    assert len({content_digest(changed), content_digest(same), digests[0]}) == 3
