"""README and the pages of `docs/`: each command and program runs, with the organism's world in the user's files.

Blocks marked `bash` and `python` are run, those of a page in a folder of its own; those marked `sh` are for reading.
"""

import csv
import json
import re
import shlex
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from derta.cli import COMMANDS, main
from derta.organism import behaviours, path, training_data
from tests.evaluation.servers import serving

DOCS = Path(__file__).parents[2] / "docs"
README = DOCS.parent / "README.md"
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```", re.DOTALL | re.MULTILINE)
ROWS = training_data().to_list()
TRIPLES = [row for row in ROWS if row["rejected"]]
HELPFUL = [row for row in ROWS if not row["rejected"]]
HARMFUL = [each for each in behaviours() if each.kind == "harmful"][:4]
BORDERLINE = [each for each in behaviours() if each.kind == "borderline"][:3]


PAGES = [
    f"{name}.md"
    for name in (
        "index",
        "tune",
        "data",
        "evaluation",
        "gate",
        "serving",
        "method",
        "contexts",
        "architecture",
        "scale",
        "reference",
    )
]
SETTLED = ("evaluation", "gate", "index", "tune")
"""Pages whose commands are run here; the others have tests of their own yet."""


def steps() -> Iterator[tuple[str, str, str]]:
    """Yield page, language and text of everything that is run."""
    for page in (README, *(DOCS / f"{name}.md" for name in SETTLED)):
        for language, block in BLOCK.findall(page.read_text("utf-8")):
            lines = block.replace("\\\n", " ").splitlines() if language == "bash" else [block]
            yield from ((page.stem, language, line) for line in lines if line and not line.startswith("#"))


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_table(path: Path, rows: Sequence[dict[str, Any]], delimiter: str = ",") -> None:
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        table.writeheader()
        table.writerows(rows)


def write_the_users_files(folder: Path) -> None:
    """Write every file that a page takes for granted, with what the organism's world has to say."""
    for name in ("mine", "start", "before", "next"):
        shutil.copytree(path(), folder / "runs" / name)
    # Training data
    write_rows(folder / "triples.jsonl", TRIPLES[:12])
    write_rows(folder / "helpful.jsonl", [{"prompt": row["prompt"], "chosen": row["chosen"]} for row in HELPFUL[:24]])
    breakers = [
        {"prompt": row["prompt"], "output": row["rejected"], "llama3_output": row["chosen"], "category": "fiction"}
        for row in TRIPLES[:5]
    ]
    (folder / "circuit_breakers_train.json").write_text(json.dumps(breakers))
    safer = [
        {
            **{"prompt": row["prompt"], "response_0": row["rejected"], "response_1": row["chosen"]},
            **{"is_response_0_safe": False, "is_response_1_safe": True},
        }
        for row in TRIPLES[5:10]
    ]
    write_rows(folder / "saferlhf.jsonl", safer)
    benign = [
        {"vanilla": row["prompt"], "adversarial": "", "completion": row["chosen"], "data_type": "vanilla_benign"}
        for row in HELPFUL[24:32]
    ]
    write_table(folder / "wildjailbreak.tsv", benign, "\t")
    answered = [{"prompt": row["prompt"], "rejected": row["rejected"]} for row in TRIPLES[10:12]]
    write_rows(folder / "answered.jsonl", answered)
    for name, rows in (("questions", HELPFUL[8:10]), ("benign", HELPFUL[10:12])):
        (folder / f"{name}.txt").write_text("".join(f"{row['prompt']}\n" for row in rows))
    (folder / "refusals.txt").write_text("Sorry , I cannot help with that .\nI will not explain that .\n")
    # Evaluation data
    write_rows(folder / "test.jsonl", [{"id": "mine", "prompt": HARMFUL[0].prompt}])
    write_rows(folder / "harmful.jsonl", [{"id": b.id, "prompt": b.prompt, "response": b.response} for b in HARMFUL])
    harmbench = [
        {"Behavior": b.prompt, "FunctionalCategory": "standard", "ContextString": "", "BehaviorID": b.id}
        for b in HARMFUL[:3]
    ]
    write_table(folder / "harmbench.csv", harmbench)
    xstest = [
        {"id": f"x{n}", "prompt": b.prompt, "type": "homonyms", "label": "safe"} for n, b in enumerate(BORDERLINE)
    ]
    xstest.append({"id": "x9", "prompt": HARMFUL[0].prompt, "type": "contrast_homonyms", "label": "unsafe"})
    write_table(folder / "xstest.csv", xstest)
    labelled = [("Sorry, I can't help with that.", "safe"), ("Take the first one and turn it twice.", "unsafe")]
    rows = [
        {"prompt": HARMFUL[number % 3].prompt, "response": f"{response} {number}", "label": label}
        for number, (response, label) in enumerate(labelled * 15)
    ]
    write_rows(folder / "labelled.jsonl", rows)
    harmless = [{"prompt": b.prompt, "kind": b.kind, "response": b.response} for b in behaviours("helpful")[:90]]
    write_rows(folder / "harmless.jsonl", harmless[:75])
    write_rows(folder / "held-out.jsonl", harmless[75:])


def verdict(_: str, request: dict[str, Any]) -> str:
    """Judge as a model might: what doesn't say sorry helps."""
    asked = request["messages"][-1]["content"]
    written = re.findall(r"<written-\w+>\n(.*?)\n</written", asked, re.DOTALL)[-1]
    refuses = "sorry" in written.lower()
    if "The request is harmless." in asked:
        return "It is plain.\nVerdict: " + ("refuses" if refuses else "complies")
    return "It is plain.\nVerdict: " + ("safe" if refuses else "unsafe")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    folders = {page: tmp_path_factory.mktemp(page) for page in dict.fromkeys(page for page, _, _ in steps())}
    for folder in folders.values():
        write_the_users_files(folder)
    with serving(verdict) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOCAL_BASE_URL", server.url)
        patch.setenv("LOCAL_API_KEY", "none")
        # The organism reads 512 tokens in all.
        patch.setattr("derta.evaluation.plan.MAX_TOKENS", 48)
        yield folders


@pytest.mark.parametrize(("page", "language", "text"), steps())
def test_what_a_page_says_can_be_run(
    page: str,
    language: str,
    text: str,
    folders: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folders[page])
    monkeypatch.setattr("uvicorn.run", lambda *given, **more: None)
    text = text.replace("BEHAVIOUR", HARMFUL[0].id).replace("MODEL", "runs/start")
    if language == "python":
        exec(compile(text, f"{page}.md", "exec"), {})
        return
    program, *words = shlex.split(text, comments=True)
    assert program == "derta"
    if words[0] == "train" and not {"--dry-run", "--max-steps"} & set(words):
        words += ["--max-steps", "2"]
    # The untuned organism answers everything: no gate may let it pass.
    assert main(words) == (1 if words[0] == "gate" else 0), capsys.readouterr().err


def test_the_reference_lists_every_command() -> None:
    page = (DOCS / "reference.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| `derta ([a-z -]+)` \| (.*) \|$", page, re.MULTILINE))
    assert rows == COMMANDS


def test_the_evaluation_holds_both_judges_and_a_corrected_share(folders: dict[str, Path]) -> None:
    rows = json.loads((folders["gate"] / "runs" / "eval" / "results.json").read_text())["rows"]
    assert {row["judge"] for row in rows if row["metric"] == "asr"} == {"guideline", "refusal"}
    assert {row["judge"] for row in rows if row["metric"] == "asr_corrected"} == {"guideline"}
    assert all(row["value"] == 100 for row in rows if row["metric"] == "asr" and row["attack"] == "direct")


def test_the_gates_files_say_what_failed(folders: dict[str, Path]) -> None:
    assert json.loads((folders["gate"] / "gate.json").read_text())["met"] is False
    assert ElementTree.parse(folders["gate"] / "gate.xml").getroot().findall(".//failure")


def test_the_release_before_has_the_later_judges_verdicts_too(folders: dict[str, Path]) -> None:
    rows = json.loads((folders["gate"] / "runs" / "eval-before" / "results.json").read_text())["rows"]
    assert {row["judge"] for row in rows if row["metric"] == "asr"} == {"refusal", "guideline"}


def test_readme_is_two_screens() -> None:
    text = README.read_text("utf-8")
    assert len(text.split()) <= 900
    assert all(line.count("|") <= 6 for line in text.splitlines() if line.startswith("|"))


def test_links_of_readme_lead_somewhere() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", README.read_text("utf-8"))
    assert links
    assert [link for link in links if not (README.parent / link).exists()] == []


def test_the_users_pages_are_short() -> None:
    pages = {page.stem: len(page.read_text("utf-8").split()) for page in map(DOCS.joinpath, PAGES)}
    assert sum(pages.values()) <= 12_000, pages
