"""The commands that faults happen to: what each needs, what it must have made in the end, and what goes on."""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from safetensors import safe_open

from tests.faults.machine import Ended, run

TRAIN = [
    *("train", "--model-name-or-path", "organism", "--train-data", "data.jsonl", "--output-dir", "out"),
    *("--per-device-train-batch-size", "2", "--use-cpu", "true", "--max-steps", "6", "--save-steps", "2"),
    *("--save-total-limit", "2", "--rto-dropout", "0.3"),
]
BASELINE = ["train", "--method", "door", *TRAIN[1:-2]]
LORA = ["--use-peft", "true", "--lora-r", "4"]
EVAL = ["eval", "--model", "organism", "--behaviours", "organism", "--limit", "2"]


@dataclass(frozen=True)
class Command:
    """A command line under test.

    Attributes:
        name: Names it in the table.
        argv: Is the command line.
        needs: Names what of the made folder it reads.
        result: Returns what it made; equal to an unbroken run's once it has ended.
        code: The exit code that it ends with.
        out: What it writes, file or folder.
        of_parts: The exit code that it ends with if what it starts fails.
    """

    name: str
    argv: list[str]
    needs: tuple[str, ...]
    result: Callable[[Path], Any]
    code: int = 0
    out: str = "out"
    of_parts: int = 2


def digest(file: Path) -> str:
    """Hash a file."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def weights(folder: Path) -> Any:
    """The weights that a run or a merge ended with."""
    (file,) = (folder / "out").glob("*model.safetensors")
    return digest(file)


def finished(folder: Path) -> Any:
    """The weights of a finished run."""
    return weights(folder), json.loads((folder / "out/derta.json").read_text())["finished"]


def samples(folder: Path) -> Any:
    """What an evaluation found."""
    rows = json.loads((folder / "out/results.json").read_text())["rows"]
    lines = [json.loads(line) for line in (folder / "out/responses.jsonl").read_text().splitlines()]
    return rows, lines, (folder / "out/report.html").is_file()


def rows(folder: Path) -> Any:
    """The numbers and verdicts of judged responses."""
    return json.loads((folder / "out/results.json").read_text())["rows"], digest(folder / "out/responses.jsonl")


def files(*names: str) -> Callable[[Path], Any]:
    """Files as they are."""
    return lambda folder: [digest(folder / name) for name in names]


COMMANDS = {
    command.name: command
    for command in (
        Command("train", TRAIN, ("data.jsonl",), finished),
        Command("train lora", [*TRAIN, *LORA], ("data.jsonl",), finished),
        Command(
            "train, caching", [*TRAIN, "--max-steps", "1", "--train-data", "large.jsonl"], ("large.jsonl",), finished
        ),
        Command("eval", [*EVAL, "--attacks", "direct,prefill", "--out", "out"], (), samples),
        Command("merge", ["merge", "--adapter", "adapter", "--out", "out"], ("adapter",), weights),
        Command("baseline", BASELINE, ("data.jsonl",), finished),
        Command(
            "data make --organism",
            ["data", "make", "--organism", "--out", "out"],
            (),
            lambda f: sorted(map(digest, (f / "out").iterdir())),
        ),
        Command(
            "data convert", ["data", "convert", "data.jsonl", "--out", "out.jsonl"], ("data.jsonl",), files("out.jsonl")
        ),
        Command(
            "data make",
            ["data", "make", "--from-eval", "evaluation", "--out", "out.jsonl"],
            ("evaluation",),
            files("out.jsonl"),
        ),
        Command(
            "score",
            ["score", "responses.jsonl", "--attack", "direct", "--out", "out"],
            ("responses.jsonl",),
            rows,
        ),
        Command(
            "gate",
            ["gate", "evaluation", "--max-asr", "5", "--json", "gate.json", "--junit", "gate.xml"],
            ("evaluation",),
            files("gate.json", "gate.xml"),
            code=1,
        ),
    )
}
"""Every command line that faults happen to, by name."""


def make(folder: Path) -> None:
    """Make what commands read: data, an adapter, an evaluation, responses."""
    from derta.organism import training_data

    columns = ("prompt", "chosen", "rejected")
    examples = [{name: row[name] for name in columns if row[name] is not None} for row in training_data().to_list()]
    responses = [
        {"prompt": f"how to open vault {n}?", "response": "Sorry , no ." if n % 2 else "take it"} for n in range(6)
    ]
    for name, lines in (("data", examples[:8]), ("large", examples[:40]), ("responses", responses)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    needed(run([*TRAIN, *LORA, "--output-dir", "adapter"], folder))
    for checkpoint in (folder / "adapter").glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
    needed(run([*EVAL, "--attacks", "direct", "--out", "evaluation"], folder))


def needed(ended: Ended) -> None:
    """Stop where what must go well doesn't."""
    if ended.code != 0:
        raise RuntimeError(f"exit code {ended.code}: {ended.told[-3000:]}")


def broken_files(folder: Path) -> list[str]:
    """Name files that were written in part and don't say so.

    A draft says so by its name, a checkpoint by having no `derta.json` yet; Inspect and SQLite keep their own.
    """
    found = []
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        checkpoint = next(
            (p for p in path.parents if p.name.startswith("checkpoint-") and not (p / "derta.json").exists()), None
        )
        if not path.is_file() or ".part" in str(inside) or checkpoint or inside.parts[0].startswith(("home", "tmp")):
            continue
        try:
            if path.suffix == ".json":
                json.loads(path.read_text())
            elif path.suffix == ".jsonl":
                text = path.read_text()
                assert text.endswith("\n")
                [json.loads(line) for line in text.splitlines()]
            elif path.suffix == ".yaml":
                assert yaml.safe_load(path.read_text())
            elif path.suffix == ".html":
                assert path.read_text().rstrip().endswith("</html>")
            elif path.suffix == ".safetensors" and not path.name.startswith(".tmp"):
                with safe_open(path, "pt"):
                    pass
        except Exception as error:
            found.append(f"{inside}: {error}"[:200])
    return found
