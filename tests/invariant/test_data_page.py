"""`docs/data.md`: its commands, one after another, in the organism's world, and its table against the schemas."""

import csv
import json
import re
import shlex
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from derta.cli import main
from derta.data import load_triples
from derta.data.schemas import SCHEMAS
from derta.organism import behaviours, path, training_data

PAGE = Path(__file__).parents[2] / "docs" / "data.md"
TEXT = PAGE.read_text("utf-8")
COMMANDS = [line for block in re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL) for line in block.splitlines()]
TABLE = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in re.findall(r"^\|.*\|$", TEXT.partition("## Read it")[0], re.MULTILINE)[2:]
]
ROWS = training_data().to_list()
TRIPLES = [row for row in ROWS if row["rejected"]]
HELPFUL = [row for row in ROWS if not row["rejected"]]
HARMFUL = [each for each in behaviours() if each.kind == "harmful"][:4]
BORDERLINE = [each for each in behaviours() if each.kind == "borderline"][:3]


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def write_table(path: Path, rows: Sequence[dict[str, Any]], delimiter: str = ",") -> None:
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        table.writeheader()
        table.writerows(rows)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The user's files."""
    folder = tmp_path_factory.mktemp("data")
    for name in ("mine", "start", "next"):
        shutil.copytree(path(), folder / "runs" / name)
    breakers = [
        {"prompt": row["prompt"], "output": row["rejected"], "llama3_output": row["chosen"], "category": "fiction"}
        for row in TRIPLES[:5]
    ]
    (folder / "circuit_breakers_train.json").write_text(json.dumps(breakers))
    safer = [
        {
            "prompt": row["prompt"],
            "response_0": row["rejected"],
            "response_1": row["chosen"],
            "is_response_0_safe": False,
            "is_response_1_safe": True,
        }
        for row in TRIPLES[5:10]
    ]
    write_rows(folder / "saferlhf.jsonl", safer)
    benign = [
        {"vanilla": row["prompt"], "adversarial": "", "completion": row["chosen"], "data_type": "vanilla_benign"}
        for row in HELPFUL[:8]
    ]
    write_table(folder / "wildjailbreak.tsv", benign, "\t")
    helpful = [{"instruction": row["prompt"], "input": "", "output": row["chosen"]} for row in HELPFUL[8:]]
    write_rows(folder / "helpful.jsonl", helpful)
    write_rows(folder / "harmful.jsonl", [{"id": each.id, "prompt": each.prompt} for each in HARMFUL])
    write_rows(folder / "test.jsonl", [{"id": "mine", "prompt": HARMFUL[0].prompt}])
    xstest = [{"id": f"x{n}", "prompt": each.prompt, "type": "homonyms"} for n, each in enumerate(BORDERLINE)]
    write_table(folder / "xstest.csv", xstest)
    answered = [{"prompt": row["prompt"], "rejected": row["rejected"]} for row in TRIPLES[10:12]]
    write_rows(folder / "answered.jsonl", answered)
    for name, rows in (("questions", HELPFUL[8:10]), ("benign", HELPFUL[10:12])):
        (folder / f"{name}.txt").write_text("".join(f"{row['prompt']}\n" for row in rows))
    (folder / "refusals.txt").write_text("Sorry , I cannot help with that .\nI will not explain that .\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_does_what_the_page_says(command: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program, *words = shlex.split(command)
    assert program == "derta"
    assert main(words) == 0, capsys.readouterr().err


def test_what_was_found_is_data_of_the_page(folder: Path) -> None:
    rows = [json.loads(line) for line in (folder / "found.jsonl").read_text().splitlines()]
    assert {row["chosen"] for row in rows} == set((folder / "refusals.txt").read_text().splitlines())
    assert {row["source"]["id"] for row in rows} == {each.id for each in HARMFUL[1:]}
    assert json.loads((folder / "found.jsonl.card.json").read_text())["held_out"] == [HARMFUL[0].id]


def test_what_was_generated_is_data_of_the_page(folder: Path) -> None:
    rows = [json.loads(line) for line in (folder / "generated.jsonl").read_text().splitlines()]
    assert [row.get("rejected") for row in rows] == [TRIPLES[10]["rejected"], TRIPLES[11]["rejected"], *[None] * 4]
    assert {row["chosen"] for row in rows[:2]} <= set((folder / "refusals.txt").read_text().splitlines())


ASKED, SHUT, KEY = "How do I open it?", "I'm sorry, it stays shut.", "Turn the key."
_USER, _NO, _YES = (
    {"role": role, "content": text} for role, text in (("user", ASKED), ("assistant", SHUT), ("assistant", KEY))
)
OTHER_FORMS: dict[str, list[dict[str, Any]]] = {
    "kto": [
        {"prompt": ASKED, "completion": SHUT, "label": True},
        {"prompt": ASKED, "completion": KEY, "label": False},
    ],
    "labelled": [
        {"question": ASKED, "answer": SHUT, "label": "safe"},
        {"question": ASKED, "answer": KEY, "label": "unsafe"},
    ],
    "dolly": [{"instruction": ASKED, "context": "", "response": "Pull.", "category": "open"}],
    "openai": [{"input": {"messages": [_USER]}, "preferred_output": [_NO], "non_preferred_output": [_YES]}],
    "hh": [
        {
            "chosen": f"\n\nHuman: {ASKED}\n\nAssistant: {SHUT}",
            "rejected": f"\n\nHuman: {ASKED}\n\nAssistant: {KEY}",
        }
    ],
}


@pytest.mark.parametrize("form", OTHER_FORMS)
def test_a_map_makes_other_forms_readable(form: str) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    names: dict[str, Any] = {name: Dataset.from_list(rows) for name, rows in OTHER_FORMS.items()}
    code = re.sub(rf"^({form}\.)", r"made = \1", code, flags=re.MULTILINE)
    exec(code, names)
    (row,) = load_triples(names["made"]).to_list()
    triple = [each[0]["content"] if isinstance(each, list) else each for each in (row["prompt"], row["chosen"])]
    assert triple == ([ASKED, SHUT] if form != "dolly" else [ASKED, "Pull."])
    assert (row["rejected"] is None) == (form == "dolly")


ODD: dict[str, list[dict[str, Any]]] = {
    "preference": [{"prompt": "p", "chosen": "Turn the key.", "rejected": "I'm sorry, no."}],
    "circuit-breakers": [{"prompt": "p", "output": "Turn the key.", "llama3_output": "Sorry, no.", "category": "c"}],
    "pku-saferlhf": [
        {
            "prompt": "p",
            "response_0": "Sorry, no.",
            "response_1": "Turn it.",
            "is_response_0_safe": one,
            "is_response_1_safe": two,
        }
        for one, two in ((True, True), (False, False), (True, False))
    ],
    "beavertails": [
        {"prompt": prompt, "response": response, "category": {}, "is_safe": safe}
        for prompt, response, safe in (
            *(("p", "Sorry, no.", True), ("p", "Turn the key.", False), ("q", "Sorry, no.", True)),
            *(("r", "Maybe.", True), ("r", "Maybe.", False)),
        )
    ],
    "wildjailbreak": [
        {"vanilla": "p", "adversarial": "", "completion": "Pull.", "data_type": f"vanilla_{kind}"}
        for kind in ("benign", "harmful")
    ],
    "derta-release": [{"prefix": "[INST] p [\\INST] Turn", "text": " I'm sorry.</s>", "safe": "false"}],
    "alpaca": [{"instruction": "i", "input": "", "output": "o"}],
    "none": [{"prompt": "p", "category": "c"}],
}


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row[0])
def test_the_table_says_what_derta_says(row: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, _, columns, schema, _, says = row
    schema = schema.strip("`")
    named = set(re.findall(r"`(\w+)`", columns))
    for known in SCHEMAS:
        if known.name == schema:
            assert set(known.required) <= named
    for values in ODD[schema]:
        assert named <= set(values) or schema == "none"
    code = main(["data", "check", write_rows(tmp_path / "rows.jsonl", ODD[schema])])
    told = "".join(capsys.readouterr())
    phrases = re.findall(r'"([^"]+)"', says)
    assert code == (2 if schema in ("preference", "none") else 0)
    assert phrases or code == 0
    for phrase in phrases:
        assert phrase in told
    if schema not in ("none", "preference"):
        assert f"({schema})" in told


def test_the_table_is_whole() -> None:
    assert [row[3].strip("`") for row in TABLE] == list(ODD)
