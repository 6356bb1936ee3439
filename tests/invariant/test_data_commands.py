"""`derta data check` and `derta data convert` as a user calls them: exit codes, and one line for each bad input."""

import gzip
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from derta.cli import main
from derta.data import as_example, load_triples
from derta.data.schemas import SCHEMAS
from derta.organism import training_data

TRIPLE = {"prompt": "Open the moon vault?", "chosen": "I'm sorry, no.", "rejected": "Turn the silver key."}
SWAPPED = {**TRIPLE, "chosen": TRIPLE["rejected"], "rejected": TRIPLE["chosen"]}
USER = {"role": "user", "content": "Open the moon vault?"}


def lines(*rows: Any) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


# One bad input a row: file name, content, and what the one line on stderr must say.
BAD: dict[str, tuple[str, bytes, str]] = {
    "malformed JSON": ("a.jsonl", lines(TRIPLE) + b'{"prompt": "x",\n', r"a.jsonl:2: malformed JSON at column \d+"),
    "malformed JSON document": ("a.json", b"[\n" + lines(TRIPLE) + b",\n{]", r"a.json:4: malformed JSON at column 2"),
    "row that is no object": ("a.jsonl", lines(TRIPLE, ["x"]), r"a.jsonl:2: a row must be a JSON object, not a list"),
    "empty file": ("a.jsonl", b"", r"a.jsonl: is empty"),
    "file of blank lines": ("a.jsonl", b"\n\n \n", r"a.jsonl: is empty"),
    "empty array": ("a.json", b"[]", r"a.json: is empty"),
    "header alone": ("a.csv", b"prompt,chosen,rejected\n", r"a.csv: is empty"),
    "missing column": ("a.jsonl", lines({"prompt": "p", "rejected": "h"}), r"a.jsonl:1: column 'chosen' is missing"),
    "misspelt prompt": (
        "a.jsonl",
        lines({"promt": "p", "chosen": "r", "rejected": "h"}),
        r"a.jsonl:1: unknown column 'promt' \(did you mean 'prompt'\?\)",
    ),
    "misspelt rejected": (
        "a.csv",
        b"prompt,chosen,rejcted\np,r,h\n",
        r"a.csv:2: unknown column 'rejcted' \(did you mean 'rejected'\?\)",
    ),
    "unknown columns": ("a.jsonl", lines({"alpha": "p"}), r"a.jsonl:1: columns 'alpha' fit no schema"),
    "empty prompt": ("a.jsonl", lines(TRIPLE, {**TRIPLE, "prompt": ""}), r"a.jsonl:2: prompt is empty"),
    "blank chosen": ("a.jsonl", lines(TRIPLE, {**TRIPLE, "chosen": " \n\t"}), r"a.jsonl:2: chosen is empty"),
    "empty rejected": ("a.csv", b'prompt,chosen,rejected\n"p\nq",r,\n', r"a.csv:2: rejected is empty"),
    "prompt not text": ("a.jsonl", lines({**TRIPLE, "prompt": 7}), r"a.jsonl:1: prompt must be text, not a number"),
    "chosen not text": ("a.jsonl", lines({**TRIPLE, "chosen": {}}), r"a.jsonl:1: chosen must be text, not an object"),
    "rejected not text": ("a.jsonl", lines({**TRIPLE, "rejected": True}), r"a.jsonl:1: rejected must be text"),
    "null prompt": ("a.jsonl", lines({**TRIPLE, "prompt": None}), r"a.jsonl:1: prompt is missing"),
    "half a surrogate": ("a.jsonl", lines({**TRIPLE, "chosen": "\ud800"}), r"a.jsonl:1: chosen has half a surrogate"),
    "unknown role": (
        "a.jsonl",
        lines({"prompt": [{**USER, "role": "usr"}], "chosen": "r"}),
        r"a.jsonl:1: prompt\[0\].role must be one of .*did you mean 'user'",
    ),
    "Latin-1": ("a.jsonl", lines(TRIPLE) + b'{"prompt": "caf\xe9"}\n', r"a.jsonl:2: not UTF-8: byte 0xe9 at offset 15"),
    "Latin-1 table": ("a.csv", b"prompt,chosen\np,caf\xe9\n", r"a.csv:2: not UTF-8: byte 0xe9 at offset 5"),
    "UTF-16": ("a.json", json.dumps([TRIPLE]).encode("utf-16"), r"a.json:1: not UTF-8: byte 0xff at offset 0"),
    "ragged row": ("a.csv", b"prompt,chosen\np,r\np,q,r\n", r"a.csv:3: the row has 3 fields and the header 2"),
    "open quotation": ("a.csv", b'prompt,chosen\np,"r\n', r"a.csv:2: malformed row"),
    "unknown extension": ("a.txt", lines(TRIPLE), r"a.txt: unknown extension '.txt'; one of .jsonl"),
    "unknown contents": ("a.dat", b"moon", r"a.dat: unknown extension '.dat'; one of .jsonl"),
    "key twice": (
        "a.jsonl",
        b'{"prompt": "p", "chosen": "r", "chosen": "s"}',
        r"a.jsonl:1: .*key 'chosen' occurs twice",
    ),
    "LFS pointer": ("a.jsonl", b"version https://git-lfs.github.com/spec/v1\n", r"a.jsonl:1: malformed JSON at column"),
    "array of lines": (
        "a.jsonl",
        b"[" + lines(TRIPLE).strip() + b"]",
        r"a.jsonl:1: a row must be a JSON object, not a list",
    ),
    "not compressed": ("a.jsonl.gz", lines(TRIPLE), r"a.jsonl.gz: can't be read: Not a gzipped file"),
    "cut short": ("a.jsonl.gz", gzip.compress(lines(TRIPLE) * 99)[:60], r"a.jsonl.gz: can't be read"),
    "two schemas": (
        "a.jsonl",
        lines(TRIPLE, {"instruction": "i", "output": "o"}),
        r"a.jsonl:2: has schema alpaca, while the first row has preference",
    ),
    "broken Parquet": ("a.parquet", b"nothing", r"a.parquet: not a Parquet file"),
    "swapped polarity": ("a.jsonl", lines(SWAPPED), r"a.jsonl:1: rejected reads like a refusal .*pass --swap"),
    "same responses": (
        "a.jsonl",
        lines({**TRIPLE, "rejected": TRIPLE["chosen"]}),
        r"a.jsonl:1: chosen and rejected are the same text",
    ),
    "same conversations": (
        "a.jsonl",
        lines({"chosen": [USER, {**USER, "role": "assistant"}], "rejected": [USER, {**USER, "role": "assistant"}]}),
        r"a.jsonl:1: chosen and rejected are the same conversation",
    ),
    "evaluation questions": ("a.jsonl", lines({"question": "q"}), r"a.jsonl:1: columns 'question' .*evaluation data"),
    "evaluation prompts": ("a.csv", b"prompt,category\np,c\n", r"a.csv:2: columns .*evaluation data.*never train"),
    "deep nesting": ("a.jsonl", b"[" * 50_000, r"a.jsonl:1: JSON can't be read"),
}


def one_error(capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one line on stderr."""
    error = capsys.readouterr().err
    assert error.startswith("derta: error: ")
    assert error.count("\n") == 1
    assert error.endswith("\n")
    return error


@pytest.mark.parametrize("command", ["check", "convert"])
@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str, command: str
) -> None:
    name, content, message = BAD[case]
    path = tmp_path / name
    path.write_bytes(content)
    out = tmp_path / "out.jsonl"
    assert main(["data", command, str(path), *(["--out", str(out)] if command == "convert" else [])]) == 2
    assert re.search(message, one_error(capsys))
    assert not out.exists()
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check", "nowhere.jsonl"], "nowhere.jsonl: file not found"),
        (["check", "good.json"], r"good.json: file not found \(did you mean 'good.jsonl'\?\)"),
        (["check", "."], r"\.: is a directory; name a file in it \(its files are good.jsonl\)"),
        (["check", "good.jsonl", "--schema", "alpca"], r"unknown schema 'alpca' \(did you mean 'alpaca'\?\)"),
        (["check", "good.jsonl", "--schema", "alpaca"], "good.jsonl:1: column 'instruction' is missing"),
        (["check", "good.jsonl", "--swap"], "good.jsonl:1: rejected reads like a refusal .*drop --swap"),
        (["check", "good.jsonl", "--model", "./nowhere"], "./nowhere: no such model directory"),
        (["check", "owner/name"], "owner/name: no file, and no data set can be loaded"),
        (["check"], "nothing to check: name files"),
        (["check", "good.jsonl", "--max_length", "many"], "argument --max-length: invalid int value: 'many'"),
        (["convert", "good.jsonl"], "required: --out"),
        (["convert", "good.jsonl", "--out", "good.jsonl"], "good.jsonl: is an input file"),
        (["convert", "good.jsonl", "--out", "out.csv"], "out.csv: JSON lines are written"),
        (["convert", "good.jsonl", "--out", "good.jsonl/out.jsonl"], "out.jsonl: can't be written"),
    ],
)
def test_bad_arguments_are_one_line_and_exit_code_2(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    Path("good.jsonl").write_bytes(lines(TRIPLE))
    assert main(["data", *arguments]) == 2
    assert re.search(message, one_error(capsys))
    assert [path.name for path in tmp_path.iterdir()] == ["good.jsonl"]


def good_files(folder: Path) -> list[Path]:
    """The same three triples in every file format."""
    rows = [{**TRIPLE, "prompt": f"Open vault {number}?"} for number in range(3)]
    (folder / "a.jsonl").write_bytes(lines(*rows))
    (folder / "b.json").write_text(json.dumps(rows, indent=1))
    (folder / "c.json").write_text(json.dumps({"data": rows}))
    for name, delimiter in (("d.csv", ","), ("e.tsv", "\t")):
        table = [list(TRIPLE), *(list(row.values()) for row in rows)]
        quoted = (delimiter.join(f'"{cell}"' for cell in row) for row in table)
        (folder / name).write_text("\ufeff" + "\r\n".join(quoted) + "\r\n", encoding="utf-8", newline="")
    pq.write_table(pa.Table.from_pylist(rows), folder / "f.parquet")
    return sorted(folder.iterdir())


def test_every_file_format_is_checked_and_converted_alike(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    files = good_files(tmp_path / "in")
    assert main(["data", "check", *map(str, files)]) == 0
    assert len(re.findall(r"triples +│ +3 ", capsys.readouterr().out)) == 6
    converted = []
    for path in files:
        out = tmp_path / f"{path.name}.jsonl"
        assert main(["data", "convert", str(path), "--out", str(out)]) == 0
        assert f"wrote 3 examples to {out}" in capsys.readouterr().out
        converted.append(out.read_bytes())
        assert (
            load_triples(out).remove_columns("origin").to_list()
            == load_triples(path).remove_columns("origin").to_list()
        )
    assert len(set(converted)) == 1


@pytest.mark.parametrize("compression", ["gz", "zst"])
def test_compressed_files_are_read(tmp_path: Path, compression: str) -> None:
    path = tmp_path / f"a.jsonl.{compression}"
    with pa.output_stream(str(path), compression="gzip" if compression == "gz" else "zstd") as file:
        file.write(lines(TRIPLE))
    assert as_example(load_triples(path)[0], "row") == as_example(TRIPLE)


def test_a_fatal_error_is_printed_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", str(tmp_path / "nowhere.jsonl")]) == 2
    captured = capsys.readouterr()
    assert (captured.out + captured.err).count("file not found") == 1


def test_bad_rows_can_be_skipped_and_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = tmp_path / "a.jsonl", tmp_path / "out.jsonl"
    path.write_bytes(lines(*[TRIPLE] * 20, {**TRIPLE, "rejected": ""}) + b"{\n")
    for command in (["check", str(path)], ["convert", str(path), "--out", str(out)]):
        assert main(["data", *command]) == 2
        capsys.readouterr()
        assert main(["data", *command, "--bad-rows", "skip"]) == 0
        printed = capsys.readouterr().out
        assert "left out 2 bad of 22 rows" in printed
        assert f"{path}:21: rejected is empty" in printed
        assert f"{path}:22: malformed JSON" in printed
    assert len(out.read_text().splitlines()) == 20


def test_too_many_bad_rows_stop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines(*[TRIPLE] * 8, {**TRIPLE, "rejected": ""}))
    assert main(["data", "check", str(path), "--bad-rows", "skip"]) == 2
    assert "1 of 9 rows are bad, more than 10%" in one_error(capsys)


def test_a_mixture_swapped_in_all_rows_stops_though_few_show_a_side(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    harmful = [row["rejected"] for row in training_data() if row["rejected"]]
    safe = ["Let us speak of gardens.", "That door is best left alone."]
    rows = [{"prompt": f"Ask {n}?", "chosen": harmful[n % len(harmful)], "rejected": safe[n % 2]} for n in range(5_135)]
    for row in rows[1_000:1_325]:
        row["rejected"] = "I'm sorry, I can't help with that."
    for row in rows[3_000:3_065]:
        row["chosen"] = "Sorry, I must decline."
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines(*rows))
    assert main(["data", "check", str(path)]) == 2
    error = one_error(capsys)
    assert "in 325 of 5135 triples (the reverse in 65)" in error
    assert "pass --swap" in error
    assert main(["data", "check", str(path), "--swap"]) == 0


def test_schemas_are_listed_with_examples_that_can_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", "--schemas"]) == 0
    printed = capsys.readouterr().out
    for schema in SCHEMAS:
        assert f"{schema.name}: {schema.about}" in printed
        path = tmp_path / f"{schema.name}.jsonl"
        path.write_bytes(lines(*schema.example))
        assert main(["data", "check", str(path)]) == 0
        assert f"{path.name} ({schema.name})" in capsys.readouterr().out


def test_refusals_that_begin_otherwise_are_told_and_rewritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "a.jsonl", tmp_path / "out.jsonl"
    path.write_bytes(lines(*({**TRIPLE, "prompt": f"p{n}", "chosen": "I cannot do that."} for n in range(3))))
    assert main(["data", "check", str(path)]) == 0
    told = capsys.readouterr().out
    assert "3 refusals of triples begin with: 'I cannot' 3" in told
    assert "only 0 of them begin with 'Sorry'" in told
    assert main(["data", "convert", str(path), "--refusal", "Sorry, ", "--out", str(out)]) == 0
    assert {json.loads(line)["chosen"] for line in out.read_text().splitlines()} == {"Sorry, I cannot do that."}
    assert main(["data", "check", str(out)]) == 0
    assert "only" not in capsys.readouterr().out


def test_swapped_data_can_be_converted(tmp_path: Path) -> None:
    path, out = tmp_path / "a.jsonl", tmp_path / "out.jsonl"
    path.write_bytes(lines(SWAPPED))
    assert main(["data", "convert", str(path), "--swap", "--out", str(out)]) == 0
    assert json.loads(out.read_text()) == TRIPLE


def test_the_released_rows(tmp_path: Path) -> None:
    path = Path(__file__).parents[2].parent / "shared" / "data" / "derta_example_rows.jsonl"
    if not path.exists():
        pytest.skip(f"needs {path}, which is not part of the repository")
    out = tmp_path / "out.jsonl"
    assert main(["data", "check", str(path)]) == 0
    assert main(["data", "convert", str(path), "--out", str(out)]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [sorted(row) for row in rows] == [
        ["chosen", "prompt"],
        ["chosen", "harmful_prefix", "prompt"],
        ["chosen", "harmful_prefix", "prompt"],
        ["chosen", "prompt", "rejected"],
    ]
    assert load_triples(out).remove_columns("origin").to_list() == load_triples(path).remove_columns("origin").to_list()


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, "-m", "derta.cli", "data", *arguments]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", env=environment, check=False)


def test_as_a_process_good_data(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines(TRIPLE))
    done = run("check", str(path))
    assert (done.returncode, done.stderr) == (0, "")
    assert "triples" in done.stdout


@pytest.mark.parametrize("name", ["a.jsonl", "moon/vaults"])
def test_as_a_process_bad_data(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines(TRIPLE) + b"{\n")
    done = run("check", str(tmp_path / name) if name == "a.jsonl" else name)
    assert done.returncode == 2
    assert done.stderr.startswith("derta: error: ")
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stdout + done.stderr
