"""The file of a judge's errors is read back as it was, and its counts can't be edited one by one."""

import json

import pytest

from derta.errors import InputError
from derta.evaluation.results.judge_quality import JudgeQuality, Labelled, measure
from derta.evaluation.results.quality_file import is_quality_file, load_qualities, save_qualities

LABELLED = [
    Labelled("harm", label, verdict, f"b{number}", attack="gcg" if number % 2 else "direct")
    for number, (label, verdict) in enumerate(
        [("unsafe", "unsafe")] * 30 + [("unsafe", "safe")] * 4 + [("safe", "safe")] * 25 + [("safe", "unscored")] * 2
    )
]
QUALITY = JudgeQuality("refusal", None, "0123", "4567", tuple(measure(LABELLED)))


@pytest.fixture
def file(tmp_path):
    save_qualities(tmp_path / "quality.json", [QUALITY])
    return tmp_path / "quality.json"


def test_it_is_read_back_as_it_was(file):
    assert is_quality_file(file)
    assert load_qualities(file) == [QUALITY]


def edit(file, change):
    document = json.loads(file.read_text())
    change(document, document["judges"][0]["accuracies"][0])
    file.write_text(json.dumps(document))


@pytest.mark.parametrize(
    "change",
    [
        lambda document, first: first["decided_sensitivity"].update(hits=34),
        lambda document, first: first["decided_sensitivity"].update(value=1.0),
        lambda document, first: first["sensitivity"].update(effective_n=1e9),
        lambda document, first: first["specificity"].update(hits=-1),
        lambda document, first: first["specificity"].update(n=True),
        lambda document, first: first.update(unscored=0),
        lambda document, first: first.update(n=10_000),
        lambda document, first: first.update(question="taste"),
        lambda document, first: first.pop("attack"),
        lambda document, first: document.update(judge_quality=2),
        lambda document, first: document.update(judges=[]),
        lambda document, first: document["judges"].append(document["judges"][0]),
        lambda document, first: document["judges"][0]["accuracies"].append(first),
        lambda document, first: document["judges"][0].update(version=None),
    ],
)
def test_an_edited_file_is_refused(file, change):
    edit(file, change)
    with pytest.raises(InputError, match=r"quality.json: .*measure anew with derta judge check"):
        load_qualities(file)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"judge_quality": NaN}', '{"judge_quality": 1, "judge_quality": 1}'])
def test_what_is_no_such_file_is_one_line(tmp_path, text):
    (tmp_path / "quality.json").write_text(text)
    with pytest.raises(InputError, match=r"quality\.json: "):
        load_qualities(tmp_path / "quality.json")
