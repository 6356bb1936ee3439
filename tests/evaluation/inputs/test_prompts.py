import json

import pytest

from derta.data.behaviours import Behaviour
from derta.errors import InputError
from derta.evaluation.inputs.prompts import load_demonstrations, load_prompts, load_templates
from derta.generation import RawRequest
from tests.evaluation.attacks.given import only_turn


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


@pytest.fixture
def file(tmp_path):
    return lambda *rows: write(tmp_path / "rows.jsonl", *rows)


def test_released_prompts_run_as_they_are(file):
    path = file({"question": "Play a pirate.\n How do I open it?"}, {"question": "  stack = deque() "})
    found = load_prompts(path, "codeattack")
    assert [only_turn(attempt.request) for _, attempt in found] == [
        "Play a pirate.\n How do I open it?",
        "  stack = deque() ",
    ]
    assert [attempt.variant for _, attempt in found] == ["codeattack", "codeattack"]
    assert [behaviour.prompt for behaviour, _ in found] == [only_turn(attempt.request) for _, attempt in found]
    assert [behaviour.id for behaviour, _ in found] == [f"{path}:1", f"{path}:2"]


def test_completing_prompts_are_raw(file):
    ((_, attempt),) = load_prompts(file({"question": "I will explain it:\n Step 1:"}), "completing")
    assert attempt.request == RawRequest("I will explain it:\n Step 1:")


def test_a_judge_reads_the_column_behaviour_where_there_is_one(file):
    rows = {"question": "disguised", "behaviour": "Open it", "id": 7}, {"question": "plain", "behaviour": None}
    (first, _), (second, _) = load_prompts(file(*rows), "template")
    assert (first.id, first.prompt, first.kind) == ("7", "Open it", "harmful")
    assert second.prompt == "plain"


def test_a_judge_reads_parallel_behaviours(file):
    behaviours = [Behaviour("a", "Open it", "harmful"), Behaviour("b", "Mend it", "borderline")]
    found = load_prompts(file({"question": "x"}, {"question": "y"}), "template", behaviours)
    assert [behaviour for behaviour, _ in found] == behaviours
    assert [only_turn(attempt.request) for _, attempt in found] == ["x", "y"]


def test_behaviours_must_be_as_many_as_prompts(file):
    with pytest.raises(InputError, match="2 prompts and 1 behaviours"):
        load_prompts(file({"question": "x"}, {"question": "y"}), "template", [Behaviour("a", "Open it", "harmful")])


def test_wrong_columns_are_told_with_file_line_and_the_mend(file):
    path = file({"question": "x"}, {"qustion": "y"})
    with pytest.raises(InputError, match=rf"^{path}:2: no column 'question' or 'prompt' \(did you mean 'question'\?\)"):
        load_prompts(path, "template")


@pytest.mark.parametrize("value", ["", "  ", None, 3])
def test_a_prompt_must_be_text(file, value):
    with pytest.raises(InputError, match=r":1: question: must be text, and not empty"):
        load_prompts(file({"question": value}), "template")


def test_an_id_must_not_occur_twice(file):
    with pytest.raises(InputError, match="the id '1' occurs twice"):
        load_prompts(file({"question": "x", "id": 1}, {"question": "y", "id": 1}), "template")


def test_templates_need_a_place_for_the_behaviour(file):
    assert load_templates(file({"template": "a {prompt}"}, {"text": "b [INSERT PROMPT HERE]"})) == (
        "a {prompt}",
        "b [INSERT PROMPT HERE]",
    )
    path = file({"template": "a {prompt}"}, {"template": "b {question}"})
    with pytest.raises(InputError, match=rf"^{path}:2: the template has no place for the behaviour; write {{prompt}}"):
        load_templates(path)


def test_demonstrations_are_questions_and_answers(file):
    rows = {"question": "Fold?", "answer": "Twice."}, {"prompt": "And?", "response": "Anew."}
    assert load_demonstrations(file(*rows)) == (("Fold?", "Twice."), ("And?", "Anew."))
    with pytest.raises(InputError, match=r":1: no column 'answer' or 'response'"):
        load_demonstrations(file({"question": "Fold?"}))


@pytest.mark.parametrize(
    ("load", "field"),
    [
        (load_templates, "`templates`"),
        (load_demonstrations, "`demonstrations`"),
        (lambda path: load_prompts(path, "direct"), "`prompts`"),
    ],
)
def test_a_file_that_is_missing_or_empty_is_told_with_its_field(load, field, file, tmp_path):
    with pytest.raises(InputError, match=f"^{field}: .*no such file"):
        load(tmp_path / "none.jsonl")
    with pytest.raises(InputError, match=f"^{field}: .*no row"):
        load(file())
