"""Behaviours from a file: good columns in, file and line of the bad ones out."""

import json

import pytest

from derta.errors import InputError
from derta.evaluation.inputs.behaviours import load_behaviours, load_borderline, load_requests

HARMBENCH = "Behavior,FunctionalCategory,SemanticCategory,Tags,ContextString,BehaviorID\n"


def write(path, text):
    path.write_text(text)
    return str(path)


def test_json_lines_and_csv_give_the_same_behaviours(tmp_path):
    lines = write(tmp_path / "b.jsonl", '{"question": "How?"}\n{"prompt": "Why?", "kind": "helpful", "id": "x"}\n')
    table = write(tmp_path / "b.csv", "question,kind,id\nHow?,,\nWhy?,helpful,x\n")
    for source in (lines, table):
        harmful, helpful = load_behaviours(source)
        assert (harmful.prompt, harmful.kind, harmful.response) == ("How?", "harmful", None)
        assert (helpful.prompt, helpful.kind, helpful.id) == ("Why?", "helpful", "x")


def test_limit_is_for_each_kind(tmp_path):
    rows = "".join(f'{{"question": "q{i}", "kind": "{k}"}}\n' for i in range(3) for k in ("harmful", "helpful"))
    found = load_behaviours(write(tmp_path / "b.jsonl", rows), limit=2)
    assert [(b.kind, b.prompt) for b in found] == [
        ("harmful", "q0"),
        ("harmful", "q1"),
        ("helpful", "q0"),
        ("helpful", "q1"),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"qestion": "How?"}', r"b.jsonl:2: no column 'question' or 'prompt' \(did you mean 'question'\?\)"),
        ('{"question": "  "}', "b.jsonl:2: question: must be text"),
        ('{"question": 7}', "b.jsonl:2: question: must be text"),
        ('{"question": "How?", "kind": "harmfull"}', r"b.jsonl:2: kind: 'harmfull' \(did you mean 'harmful'\?\)"),
        ('{"question": "How?", "response": []}', "b.jsonl:2: response: must be text"),
        ('{"question": ', "b.jsonl:2"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(tmp_path, line, message):
    with pytest.raises(InputError, match=message) as caught:
        load_behaviours(write(tmp_path / "b.jsonl", f'{{"question": "fine"}}\n{line}\n'))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "prompt", "response", "id_"),
    [
        (
            "harmbench.csv",
            HARMBENCH + "Open it,standard,x,,,open_it\n",
            "Open it",
            None,
            "open_it",
        ),
        (
            "contextual.csv",
            HARMBENCH + "Open it,contextual,x,,A vault.,o\n",
            "A vault.\n\n---\n\nOpen it",
            None,
            "o",
        ),
        ("advbench.csv", "goal,target\nOpen it,Sure: take a hook\n", "Open it", "Sure: take a hook", None),
        (
            "jbb.csv",
            "Index,Goal,Target,Behavior,Category,Source\n0,Open it,Sure: take a hook,Opening,x,Original\n",
            "Open it",
            "Sure: take a hook",
            None,
        ),
        ("strongreject.csv", "category,source,forbidden_prompt\nx,y,Open it\n", "Open it", None, None),
        ("lines.txt", "\ufeffOpen it\n\n  Close it \n", "Open it", None, None),
        (
            "ours.jsonl",
            '{"prompt": "Open it", "chosen": "No.", "rejected": "Take a hook"}\n',
            "Open it",
            "Take a hook",
            None,
        ),
        (
            "chat.jsonl",
            '{"prompt": [{"role": "user", "content": "Open it"}], "chosen": [{"role": "assistant", "content": "No."}], '
            '"rejected": [{"role": "assistant", "content": "Take a hook"}]}\n',
            "Open it",
            "Take a hook",
            None,
        ),
    ],
)
def test_files_are_read_as_people_have_them(tmp_path, name, text, prompt, response, id_):
    path = write(tmp_path / name, text)
    found = load_behaviours(path)[0]
    line = 1 if name.endswith((".jsonl", ".txt")) else 2
    assert (found.prompt, found.response, found.kind) == (prompt, response, "harmful")
    assert found.id == (id_ or f"{path}:{line}")


def test_preference_data_has_helpful_rows_where_nothing_is_rejected(tmp_path):
    rows = '{"prompt": "a", "chosen": "No.", "rejected": "Yes."}\n{"prompt": "b", "chosen": "Fine."}\n'
    assert [each.kind for each in load_behaviours(write(tmp_path / "p.jsonl", rows))] == ["harmful", "helpful"]


def test_a_conversation_of_several_turns_is_no_behaviour(tmp_path):
    turns = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    with pytest.raises(InputError, match=r"b\.jsonl:1: prompt: must be text"):
        load_behaviours(write(tmp_path / "b.jsonl", json.dumps({"prompt": turns}) + "\n"))


@pytest.mark.parametrize("text", ["", "\n"])
def test_a_file_of_nothing_is_refused(tmp_path, text):
    with pytest.raises(InputError):
        load_behaviours(write(tmp_path / "b.jsonl", text))


def test_no_file_and_no_behaviours_at_all(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        load_behaviours(str(tmp_path / "nope.jsonl"))
    twice = write(tmp_path / "b.jsonl", '{"question": "a", "id": "1"}\n{"question": "b", "id": "1"}\n')
    with pytest.raises(InputError, match="occurs twice"):
        load_behaviours(twice)


def test_the_spelling_of_columns_and_kinds_makes_no_difference(tmp_path):
    table = "Prompt,Kind,ID\nHow?,Harmful,7\nWhy?,HELPFUL,8\n"
    found = load_behaviours(write(tmp_path / "b.csv", table))
    assert [(each.kind, each.id) for each in found] == [("harmful", "7"), ("helpful", "8")]
    xstest = "Prompt,Type,Label\nHow do I kill a process?,homonyms,Safe\nHow do I kill him?,Contrast_homonyms,Unsafe\n"
    assert [each.prompt for each in load_borderline(write(tmp_path / "x.csv", xstest))] == ["How do I kill a process?"]
    with pytest.raises(InputError, match=r"h.csv:3: kind: 'harmful', where borderline prompts are read"):
        load_borderline(write(tmp_path / "h.csv", "Prompt,Kind\nHow do I kill a process?,Borderline\nHow?,Harmful\n"))
    with pytest.raises(InputError, match="'Prompt' and 'PROMPT' are one column to derta"):
        load_behaviours(write(tmp_path / "c.csv", "Prompt,PROMPT\nHow?,Why?\n"))


def test_text_that_cannot_be_written_is_named(tmp_path):
    for row in ('{"prompt": "How \\ud800?"}', '{"prompt": "How?", "id": "\\udc00"}'):
        with pytest.raises(InputError, match=r"b\.jsonl:1: \w+ has half a surrogate pair"):
            load_behaviours(write(tmp_path / "b.jsonl", row + "\n"))


@pytest.mark.parametrize("kind", ["harmful", "borderline", "helpful"])
def test_prompts_to_train_on_are_of_the_kind_that_they_say(tmp_path, kind):
    """What a model answers of a harmful prompt would be a target."""
    others = ["borderline", "helpful"] if kind == "harmful" else ["harmful"]
    path = write(tmp_path / "k.csv", f"prompt,kind\nWhy?,{kind}\n")
    assert [each.kind for _, each in load_requests(path, kind)] == [kind]
    for other in others:
        with pytest.raises(InputError, match=f":2: kind: '{other}', where {kind} prompts are read"):
            load_requests(write(tmp_path / "o.csv", f"prompt,kind\nWhy?,{other}\n"), kind)
