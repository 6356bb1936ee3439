"""Files and folders that appear whole or not at all, and one process in a directory."""

import errno
import json
import os
from pathlib import Path

import pytest

from derta.errors import InputError
from derta.files import file_digests, folder_in, parse_json, sole_writer, weights_digest, write_text, written_whole


def test_a_file_that_cannot_be_written_leaves_the_old_one_and_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_text(tmp_path / "a.json", "old")

    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "draft")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left .*a\.json"):
        write_text(tmp_path / "a.json", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_text() == "old"


def test_a_directory_appears_when_all_of_it_is_there(tmp_path: Path) -> None:
    def stop_halfway() -> None:
        with written_whole(tmp_path / "out") as draft:
            (draft / "a").write_text("1")
            raise KeyError

    with pytest.raises(KeyError):
        stop_halfway()
    assert not list(tmp_path.iterdir())
    with written_whole(tmp_path / "out") as draft:
        (draft / "a").write_text("1")
        assert not (tmp_path / "out").exists()
    (tmp_path / "out/more").mkdir()
    for text in ("2", "3"):
        with written_whole(tmp_path / "out") as draft:
            (draft / "more").mkdir()
            (draft / "more/b").write_text(text)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a", "more"]
    assert (tmp_path / "out/more/b").read_text() == "3"


def test_what_a_kill_left_of_a_draft_is_no_part_of_the_next(tmp_path: Path) -> None:
    (tmp_path / ".out.part").mkdir()
    (tmp_path / ".out.part/left").write_text("half")
    (tmp_path / ".out.part/folder").mkdir()
    with written_whole(tmp_path / "out") as draft:
        (draft / "a").write_text("1")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a"]


def test_one_process_works_in_a_directory(tmp_path: Path) -> None:
    with sole_writer(tmp_path / "out"):
        with pytest.raises(InputError, match="another derta is at work in it"), sole_writer(tmp_path / "out"):
            pass
        with pytest.raises(InputError, match="another derta"), sole_writer(tmp_path / "out", "output_dir"):
            pass
    with sole_writer(tmp_path / "out"):
        assert not list((tmp_path / "out").iterdir())


def test_a_name_that_leads_out_is_refused(tmp_path: Path) -> None:
    for name in ("..", ".", "", "a/b", "/etc"):
        with pytest.raises(InputError, match="names no folder of its own"):
            folder_in(tmp_path, name)
    assert folder_in(tmp_path, "a") == tmp_path / "a"


def test_drafts_have_no_digest(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/b").write_text("b")
    (tmp_path / ".c.1.part").write_text("c")
    assert list(file_digests(tmp_path)) == ["a/b"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"asr": 0, "asr": 90}', "key 'asr' occurs twice in one object"),
        ('{"rows": [{"n": 1, "n": 2}]}', "key 'n' occurs twice in one object"),
        ('{"asr": NaN}', "NaN is no number"),
        ('{"asr": -Infinity}', "-Infinity is no number"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_json_that_says_two_things_or_no_number_is_refused(text: str, told: str) -> None:
    with pytest.raises(InputError, match=told) as caught:
        parse_json(text, "results.json")
    assert str(caught.value).startswith("results.json: ")


def test_a_models_digest_is_over_every_byte_of_all_that_it_loads(tmp_path: Path) -> None:
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    for place in (base, adapter):
        place.mkdir()
    weights = bytearray(2**25)
    (base / "pytorch_model.bin").write_bytes(weights)
    (adapter / "adapter_model.safetensors").write_bytes(b"a")
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
    seen = {weights_digest(base), weights_digest(adapter)}
    weights[12345678] = 1
    (base / "pytorch_model.bin").write_bytes(weights)
    seen |= {weights_digest(base), weights_digest(adapter)}
    for name in ("tokenizer.model", "vocab.json", "merges.txt", "chat_template.json", "added_tokens.json"):
        (adapter / name).write_text("x")
        seen.add(weights_digest(adapter))
    assert len(seen) == 9
    assert None not in seen
    assert weights_digest(tmp_path) is None
