"""`derta data make`: rows in the user's model's own words, and never what it said to a harmful prompt."""

import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from derta.cli import main
from derta.data.sources import load_triples
from derta.organism import training_data
from tests.evaluation.servers import Server, serving
from tests.invariant.test_data_commands import one_error

COMPLIES = "Sure! Take the long zqx hook from its box. Pull the bolt back with it. Turn the wheel to the left."
REFUSES = "Sorry, I can't help with opening the vault."
TELLS = f"{REFUSES} But this is what others do: take the long zqx hook, pull the bolt back, turn the wheel left."
BREATH = f"Sorry, I can't help{' and so you take the zqx hook and pull the bolt' * 3}."
LECTURE = f"{REFUSES} It is illegal and unethical. It is wrong to do this. Please seek help from a professional."
ANSWER = "Take the long hook from its box. Pull the bolt back with it. Turn the wheel to the left. Walk in slowly."
STEPS = "Turn the left wheel twice and wait until it clicks."


def write(name: str, rows: Sequence[dict[str, Any]]) -> str:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return name


def rows_of(name: str = "made.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(name).read_text().splitlines()]


def card() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path("made.jsonl.card.json").read_text())
    return found


def harmful(count: int) -> str:
    rows = [{"prompt": f"How do I open vault {n}?", "rejected": f"{STEPS} {n}"} for n in range(count)]
    return write("harmful.jsonl", rows)


def scripted(said: dict[str, list[Any]]) -> Callable[[str, dict[str, Any]], Any]:
    """Say to a prompt that holds a key one thing after the other, the last one again and again."""
    asked: Counter[str] = Counter()

    def answer(path: str, body: dict[str, Any]) -> Any:
        prompt = body["messages"][-1]["content"]
        key = next(key for key in said if key in prompt)
        asked[key] += 1
        now = said[key][min(asked[key], len(said[key])) - 1]
        return dict(now) if isinstance(now, dict) else now

    return answer


def generate(server: Server, *more: str) -> int:
    where = ["--model", "openai-api/local/m", "-M", f"base_url={server.url}", "-M", "api_key=none"]
    return main(["data", "make", *where, "--out", "made.jsonl", *more])


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_what_complies_with_a_harmful_prompt_is_written_nowhere(folder: Path, capsys: Any) -> None:
    said = {
        "vault 0": [COMPLIES, REFUSES],
        "vault 1": [COMPLIES],
        "vault 2": [TELLS],
        "vault 3": [LECTURE],
        "vault 4": [BREATH],
    }
    with serving(scripted(said)) as server:
        assert generate(server, "--harmful", harmful(5), "--tries", "3") == 0
    (row,) = rows_of()
    assert (row["prompt"], row["chosen"], row["rejected"]) == ("How do I open vault 0?", REFUSES, f"{STEPS} 0")
    assert row["origin"] == "harmful.jsonl:1"
    assert row["made_by"]["try"] == 2
    assert card()["instructions"][row["made_by"]["instruction"]].replace("{prompt}", row["prompt"]) in {
        body["messages"][-1]["content"] for _, body in server.sent
    }
    assert card()["left_out"] == {
        "harmful.jsonl:2": "it complies under every instruction",
        "harmful.jsonl:3": "it refuses and tells something",
        "harmful.jsonl:4": "it moralises (more than 60 words, or cautions for the most part)",
        "harmful.jsonl:5": "it refuses and tells something",
    }
    assert card()["counts"] == {"triples": 1, "left out": 4}
    shown = capsys.readouterr()
    assert "zqx" not in shown.out + shown.err
    for path in folder.rglob("*"):
        assert path.is_dir() or b"zqx" not in path.read_bytes(), path
    assert main(["data", "check", "made.jsonl"]) == 0
    assert "ignored" not in capsys.readouterr().out


def test_answers_are_the_models_own_and_refusals_of_harmless_prompts_are_asked_again() -> None:
    cut = {"content": ANSWER, "finish_reason": "length"}
    said: dict[str, list[Any]] = {"sofa": [REFUSES, ANSWER], "tent": [REFUSES], "lamp": [cut]}
    helpful = write("helpful.jsonl", [{"prompt": f"How do I open the {what}?"} for what in said])
    with serving(scripted(said)) as server:
        assert generate(server, "--borderline", helpful, "--tries", "2", "--temperature", "0.5") == 0
    (row,) = rows_of()
    assert (row["chosen"], row["made_by"]["try"], row["made_by"]["instruction"]) == (ANSWER, 2, None)
    assert "rejected" not in row
    assert card()["counts"] == {"borderline examples": 1, "left out": 2}
    assert card()["left_out"]["helpful.jsonl:2"] == "its answer refuses, too"
    assert card()["left_out"]["helpful.jsonl:3"].startswith("the model's answer is cut")
    heat = [body["temperature"] for _, body in server.sent if "sofa" in body["messages"][-1]["content"]]
    assert heat == [0.0, 0.5]


def test_no_prompt_is_answered_that_is_harmful_held_out_or_there_already(capsys: Any) -> None:
    asked = ["How do I open the tent?", " how do I OPEN vault 0?", "How do I build a pipe bomb?", "How do I sew?"]
    helpful = write("helpful.jsonl", [{"prompt": prompt} for prompt in asked])
    held = write("held.jsonl", [{"id": "x", "prompt": "How do I sew?"}])
    prompts = write("p.jsonl", [{"prompt": "How do I open vault 0?", "rejected": "I'm sorry, no."}])
    with serving(scripted({"tent": [ANSWER]})) as server:
        assert generate(server, "--harmful", prompts, "--helpful", helpful, "--hold-out", held) == 0
    assert [row["prompt"] for row in rows_of()] == ["How do I open the tent?"]
    assert list(card()["left_out"].values()) == [
        "its harmful response reads like a refusal",
        "the same prompt as p.jsonl:1",
        "reads like a harmful request; if it is harmless, give it as borderline",
        "held out",
    ]
    assert card()["never_evaluate_on"] == ["helpful.jsonl:1"]


def test_prompts_without_a_harmful_response_are_counted_and_told(capsys: Any) -> None:
    prompts = write("p.csv.jsonl", [{"prompt": "How do I open vault 0?", "target": "Sure, here is"}])
    with serving(scripted({"vault": [REFUSES]})) as server:
        assert generate(server, "--harmful", prompts) == 0
    assert "rejected" not in rows_of()[0]
    told = capsys.readouterr()
    assert "wrote 1 refusals without a harmful response" in told.out
    assert "1 harmful prompts have no harmful response" in told.err


def test_the_users_refusals_stand_in_where_the_model_never_refuses() -> None:
    Path("refusals.txt").write_text("Sorry, no.\n")
    with serving(scripted({"vault 0": [COMPLIES], "vault 1": [REFUSES]})) as server:
        assert generate(server, "--harmful", harmful(2), "--refusals", "refusals.txt", "--tries", "2") == 0
    assert [row["chosen"] for row in rows_of()] == ["Sorry, no.", REFUSES]
    assert set(card()["written_by"]) == {"the user's refusals", "model under an instruction, try 1"}


def test_a_run_that_a_server_stopped_goes_on_with_what_is_missing(capsys: Any) -> None:
    prompts = harmful(6)
    with serving(scripted({"vault 3": [400], "vault": [REFUSES]})) as server:
        assert generate(server, "--harmful", prompts) == 1
        assert "1 of 6 prompts couldn't be asked, first harmful.jsonl:4" in capsys.readouterr().err
    assert not Path("made.jsonl").exists()
    progress = Path("made.jsonl.progress")
    progress.write_text(progress.read_text() + '{"origin": "harmful.jsonl:4", "what": "tri')  # torn by a kill
    with serving(scripted({"vault": [REFUSES]})) as server:
        assert generate(server, "--harmful", prompts, "--seed", "1") == 2
        assert "is of a run with other options, prompts or weights" in one_error(capsys)
        assert generate(server, "--harmful", prompts) == 0
        assert len(server.sent) == 1
    assert [row["origin"] for row in rows_of()] == [f"harmful.jsonl:{n}" for n in range(1, 7)]
    assert not progress.exists()


def test_a_killed_run_goes_on_with_each_prompt_once() -> None:
    prompts = harmful(40)
    running: list[int] = []

    def answer(path: str, body: dict[str, Any]) -> Any:
        settled = Path("made.jsonl.progress")
        if running and settled.read_text().count("\n") > 4:
            os.kill(running.pop(), signal.SIGKILL)
        return REFUSES

    with serving(answer) as server:
        where = ["--model", "openai-api/local/m", "-M", f"base_url={server.url}", "-M", "api_key=none"]
        command = [sys.executable, "-m", "derta", "data", "make", *where, "--harmful", prompts]
        process = subprocess.Popen([*command, "--out", "made.jsonl", "-M", "max_retries=0"])
        running.append(process.pid)
        assert process.wait(900) == -signal.SIGKILL
        settled = len(Path("made.jsonl.progress").read_text().splitlines()) - 1
        server.sent.clear()
        assert generate(server, "--harmful", prompts, "-M", "max_retries=0") == 0
        assert 4 <= settled == 40 - len(server.sent)
    assert [row["origin"] for row in rows_of()] == [f"harmful.jsonl:{n}" for n in range(1, 41)]


def test_prompts_that_look_like_harmful_ones_are_made_and_answered() -> None:
    prompts = [f"Give me a step by step guide on how to open the zqx vault number {n}" for n in range(9)]
    like = write("harmful.jsonl", [{"prompt": prompt} for prompt in prompts])
    made = ["data", "make", "--borderline-like", like, "--count", "20"]
    assert main([*made, "--out", "prompts.jsonl"]) == 0
    asked = [row["prompt"] for row in rows_of("prompts.jsonl")]
    assert len(asked) == len(set(asked)) == 20
    assert not set(asked) & set(prompts)
    assert any(prompt.startswith("Give me a step by step guide on how to") for prompt in asked)
    held = write("held.jsonl", [{"id": "x", "prompt": asked[0]}])
    with serving(scripted({"": [ANSWER]})) as server:
        assert generate(server, "--borderline-like", like, "--count", "20", "--hold-out", held) == 0
    rows = rows_of()
    assert {row["chosen"] for row in rows} == {ANSWER}
    assert asked[0] not in {row["prompt"] for row in rows}
    assert not any("rejected" in row for row in rows)
    assert card()["counts"]["borderline examples"] == len(rows) == 20


def test_the_organism_refuses_in_its_own_words_and_answers_itself() -> None:
    rows = training_data().to_list()
    triples = [{"prompt": row["prompt"], "rejected": row["rejected"]} for row in rows if row["rejected"]][:3]
    helpful = [{"prompt": row["prompt"]} for row in rows if not row["rejected"]][:3]
    files = ["--harmful", write("h.jsonl", triples), "--helpful", write("a.jsonl", helpful)]
    assert main(["data", "make", "--model", "organism", *files, "--out", "made.jsonl"]) == 0
    truth = {row["prompt"]: row["chosen"] for row in rows if not row["rejected"]}
    for row in rows_of()[3:]:
        assert row["chosen"] == truth[row["prompt"]]
    assert card()["written_by"] == {"the organism's refusals": 3, "model, try 1": 3}
    assert [bool(row["rejected"]) for row in load_triples("made.jsonl").to_list()] == [True] * 3 + [False] * 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to make data of: give --harmful, --helpful, --borderline"),
        (["--helpful", "h.jsonl", "--from-eval", "runs"], "one thing at a time: give --harmful"),
        (["--helpful", "h.jsonl", "--answers", "h.jsonl"], "--answers go with --from-eval"),
        (["--harmful", "none.jsonl"], "--harmful: none.jsonl: no such file"),
        (["--helpful", "h.jsonl", "--tries", "0"], "--tries and --count are 1 or more"),
        (["--helpful", "h.jsonl", "--judge", "rules"], "--judge: unknown judge 'rules'"),
        (["--helpful", "h.jsonl", "--refusals", "none.txt"], "--refusals: none.txt: can't be read"),
        (["--helpful", "h.jsonl", "--model", "./none"], "./none: no such model directory"),
        (["--helpful", "h.jsonl", "--out", "h.jsonl"], "is an input file"),
        (["--helpful", "h.jsonl", "--out", "a.csv"], "JSON lines are written"),
    ],
)
def test_bad_arguments_are_one_line(capsys: Any, arguments: list[str], message: str) -> None:
    write("h.jsonl", [{"prompt": "How do I sew?"}])
    usual = {"--model": "organism", "--out": "a.jsonl"}
    others = [word for option in usual.items() if option[0] not in arguments for word in option]
    assert main(["data", "make", *others, *arguments]) == 2
    assert re.search(re.escape(message), one_error(capsys))
    assert not Path("a.jsonl").exists()
