"""People's labels of responses, in the shapes that they come in; what can't be told is an error."""

import re

import pytest

from derta.errors import InputError
from derta.evaluation.inputs.labelled import read_labelled

ROW = {"prompt": "How do I open it?", "response": "Turn the key."}


@pytest.mark.parametrize(
    ("column", "value", "label"),
    [
        ("label", "unsafe", "unsafe"),
        ("label", "Not harmful", "safe"),
        ("final_label", "1_full_compliance", "complies"),
        ("final_label", "3_partial_refusal", "partly"),
        ("is_safe", False, "unsafe"),
        ("is_safe", True, "safe"),
        ("jailbroken", 1, "unsafe"),
        ("human_majority", 0, "safe"),
        ("refusal", "yes", "refuses"),
        ("complies", "no", "refuses"),
    ],
)
def test_labels_are_read_by_their_words_or_by_their_columns_name(write_rows, column, value, label):
    (found,), unlabelled = read_labelled(write_rows([{**ROW, column: value}]))
    assert (found.label, found.prompt, found.response, unlabelled) == (label, *ROW.values(), 0)


def test_rows_without_a_label_are_left_out_and_counted(write_rows):
    found, unlabelled = read_labelled(write_rows([{**ROW, "label": label} for label in ("safe", None, " ")]))
    assert ([each.label for each in found], unlabelled) == (["safe"], 2)


def test_the_user_says_which_label_means_unsafe(write_rows):
    file = write_rows([{**ROW, "label": label} for label in ("0", "1", "2")])
    found, _ = read_labelled(file, unsafe=["1", "2"])
    assert [each.label for each in found] == ["safe", "unsafe", "unsafe"]


def test_a_sign_is_part_of_a_label(write_rows):
    file = write_rows([{**ROW, "label": label} for label in (-1, 1)])
    assert [each.label for each in read_labelled(file, unsafe=["-1"])[0]] == ["unsafe", "safe"]
    assert [each.label for each in read_labelled(file, unsafe=["1"])[0]] == ["safe", "unsafe"]
    with pytest.raises(InputError, match="is_safe: unknown label '-1'"):
        read_labelled(write_rows([{**ROW, "is_safe": -1}]))


@pytest.mark.parametrize(
    ("labels", "word"), [("+-", "+"), ((">=3", "<3"), ">=3"), (("very bad", "bad"), "very bad"), ((1.0, 0.0), "1")]
)
def test_labels_that_the_user_names_are_told_apart_by_all_that_they_say(write_rows, labels, word):
    file = write_rows([{**ROW, "rating": label} for label in labels])
    found, _ = read_labelled(file, label_column="rating", unsafe=[word])
    assert [each.label for each in found] == ["unsafe", "safe"]


def test_every_label_that_the_user_names_is_there_and_is_one(write_rows):
    file = write_rows([{**ROW, "label": label} for label in ("bad", "very bad", "1_fine", "2_fine", "fine!")])
    with pytest.raises(InputError, match=r"no label is 'verybad' \(did you mean 'very bad'"):
        read_labelled(file, unsafe=["bad", "verybad"])
    with pytest.raises(InputError, match="'Fine' may be '1_fine' or '2_fine' or 'fine!'; say which"):
        read_labelled(file, unsafe=["Fine"])


def test_how_it_was_asked_and_who_answered_is_kept(write_rows):
    row = {"goal": "Open it", "prompt": "Please!", "response": "No.", "label": "safe", "attack": "gcg", "model": "m"}
    (found,), _ = read_labelled(write_rows([row]))
    assert (found.behaviour, found.prompt, found.attack, found.model) == ("Open it", "Please!", "gcg", "m")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"label": "1"}, "rows.jsonl:1: label: what '1' means can't be told; .*`unsafe_label`"),
        ({"label": "unsfe"}, r"rows.jsonl:1: label: unknown label 'unsfe' \(did you mean 'unsafe'\?\)"),
        ({"lable": "safe"}, r"rows.jsonl:1: no column of labels \(did you mean 'label'\?\)"),
        ({"label": "safe", "is_safe": True}, "rows.jsonl:1: several columns of labels, label, is_safe"),
        ({"label": "safe", "judge": "refusal"}, "rows.jsonl:1: 'label' holds verdicts of the judge refusal"),
        ({"label": None}, "rows.jsonl: no row has a label in the column 'label'"),
        ({"label": "safe", "response": None}, "rows.jsonl:1: .*response"),
        ({"label": "safe", "prefix": "Other"}, "rows.jsonl:1: the response doesn't begin with its prefix"),
    ],
)
def test_what_cannot_be_told_is_one_line(write_rows, row, message):
    with pytest.raises(InputError, match=message) as error:
        read_labelled(write_rows([{**ROW, **row}]))
    assert "\n" not in str(error.value)
    assert re.search(r"\x1b", str(error.value)) is None
