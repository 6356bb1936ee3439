"""Files of responses as others wrote them."""

import json

import pytest

from derta.errors import InputError
from derta.evaluation.inputs.responses import read_responses

SUMMARY = "\n======== FINAL SUMMARY STATISTICS ========\nIndex: 0\nGoal: Knit\n"


def written(tmp_path, *rows, name="r.jsonl"):
    path = tmp_path / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("prompt", ["question", "instruction", "prompt"])
@pytest.mark.parametrize("response", ["response", "output", "completion"])
def test_usual_columns_are_read(tmp_path, prompt, response):
    (row,) = read_responses(written(tmp_path, {prompt: "Q", response: "R", "answer": 3}, name="r.json"))
    assert (row.prompt, row.response, row.prefix, row.answer) == ("Q", "R", "", "3")
    array = tmp_path / "a.json"
    array.write_text(json.dumps([{prompt: "Q", response: "R", "prefix": "P"}], indent=1))
    (row,) = read_responses(array)
    assert (row.prompt, row.response, row.prefix) == ("Q", "R", "P")


def test_strings_are_split_after_their_prompt(tmp_path):
    path = written(tmp_path, "I will explain how to knit:\n Step 1:Sorry, no", "I will knit for you. Take wool: red.")
    rule = read_responses(path)
    assert [row.response for row in rule] == ["Sorry, no", " red."]
    unmarked = read_responses(written(tmp_path, "I knit\nwool", "wool", name="u.jsonl"))
    assert [(row.prompt, row.response) for row in unmarked] == [("I knit\n", "wool"), ("", "wool")]
    prompts = written(
        tmp_path,
        {"question": "I will knit"},
        {"question": "I will knit for you."},
        {"question": "I will explain how to knit:\n Step 1: "},
        name="p.jsonl",
    )
    known = read_responses(path, prompts)
    spaced = written(
        tmp_path, {"question": "I will  explain how to knit :\n Step 1:"}, {"question": "I will"}, name="s.jsonl"
    )
    assert [row.response for row in read_responses(path, spaced)] == ["Sorry, no", " knit for you. Take wool: red."]
    assert [row.response for row in known] == ["Sorry, no", " Take wool: red."]
    assert all(row.is_raw for row in known)
    with pytest.raises(InputError, match=r"r\.jsonl:1: begins with none of the prompts"):
        read_responses(path, written(tmp_path, {"question": "Other"}, name="q.jsonl"))


def test_pair_summaries_are_read(tmp_path):
    failed, broken = read_responses(
        written(tmp_path, SUMMARY + "No jailbreaks achieved.\nMax Score: 3", SUMMARY + "First Jailbreak: 3 Queries\n")
    )
    assert (failed.jailbroken, broken.jailbroken, failed.prompt) == (False, True, "Knit")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"question": "Q", "response": "R"}\n{"question": "Q", "respons": "R"}', r":2: no column 'response'.*did you"),
        ('{"quesion": "Q", "response": "R"}', r":1: no column 'question'"),
        ('{"question": "Q", "response": null}', r":1: response: must be text"),
        ('{"question": "Q", "response": "R"}\n{oops', r":2: not JSON"),
        ("7", r":1: a row must be an object or a string"),
        ("", "no response in this file"),
        (f'{json.dumps(SUMMARY)}\n{{"question": "Q", "response": "R"}}', r":2: PAIR summaries and responses"),
    ],
)
def test_wrong_rows_are_named(tmp_path, text, message):
    path = tmp_path / "bad.jsonl"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_responses(path)
