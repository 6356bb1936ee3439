"""`derta compare`: side by side, subtracted only where that means something."""

import json
from dataclasses import replace

import pytest

from derta.cli import main
from derta.evaluation.results.compare import compare as comparison
from derta.evaluation.results.metrics import ModelId
from derta.evaluation.results.store import RESPONSES, SETTINGS, load_evaluation
from tests.evaluation.results import made


def evaluation(directory, samples, *, digest=None, **settings):
    made.evaluation(directory, samples, model=ModelId(directory.name, digest), **settings)
    return directory


def attacked(labels, judge="refusal", **options):
    return [made.sample(i, label, judge=judge, **options) for i, label in enumerate(labels)]


@pytest.fixture
def compare(tmp_path, capsys, monkeypatch):
    """Compare two evaluations and return what was printed, in words, and what was written."""

    monkeypatch.setenv("COLUMNS", "160")

    def run(first, second, *options):
        out = tmp_path / "comparison.json"
        code = main(["compare", str(first), str(second), *options, "--out", str(out)])
        assert code == 0
        shown = capsys.readouterr().out
        assert "…" not in shown
        return " ".join(shown.split()), json.loads(out.read_text())

    return run


def test_metrics_stand_side_by_side_with_their_difference(tmp_path, compare):
    first = evaluation(tmp_path / "a", attacked(["unsafe"] * 10 + ["safe"] * 2), max_new_tokens=64)
    second = evaluation(tmp_path / "b", attacked(["safe"] * 11 + ["unsafe"]), max_new_tokens=64)
    out, written = compare(first, second)
    assert "compliance under attack" in out
    assert "-75.0 [-9" in out
    (asr,) = [each for each in written["differences"]["refusal"] if each["metric"] == "asr"]
    assert asr["value"] == pytest.approx(-75.0)
    assert asr["p_value"] == pytest.approx(24 / 2**11)
    assert [row["model"] for rows in written["rows"] for row in rows if row["metric"] == "asr"] == ["a", "b"]
    assert written["notes"] == []


def test_what_isnt_shared_is_named(tmp_path, compare):
    first = evaluation(
        tmp_path / "a", [*attacked(["safe"] * 3), made.sample(0, attack="prefill")], temperature=0.0, seed=1
    )
    second = evaluation(tmp_path / "b", attacked(["safe"] * 2), temperature=1.0, seed=1)
    _, written = compare(first, second)
    notes = "\n".join(written["notes"])
    assert f"only in {first}: attacks prefill" in notes
    assert f"only in {first}: behaviours h2" in notes
    assert "temperature differs: 0.0 and 1.0" in notes
    assert "seed" not in notes


def test_verdicts_of_different_judges_are_not_subtracted(tmp_path, compare):
    first = evaluation(tmp_path / "a", attacked(["unsafe"] * 4))
    second = evaluation(tmp_path / "b", attacked(["safe"] * 4, judge="guideline"))
    out, written = compare(first, second)
    assert written["differences"] == {}
    assert "judges differ: refusal and guideline; their verdicts aren't subtracted" in out
    assert "-100.0" not in out


def test_the_same_weights_are_called_so(tmp_path, compare):
    sides = [evaluation(tmp_path / name, attacked(["safe"]), digest="f00") for name in "ab"]
    assert "both are of the same weights" in compare(*sides)[1]["notes"]


@pytest.mark.parametrize("missing", [SETTINGS, RESPONSES])
def test_an_unfinished_evaluation_is_bad_input(tmp_path, capsys, missing):
    first = evaluation(tmp_path / "a", attacked(["safe"]))
    second = evaluation(tmp_path / "b", attacked(["safe"]))
    (second / missing).unlink()
    assert main(["compare", str(first), str(second)]) == 2
    error = capsys.readouterr().err
    assert str(second / missing) in error
    assert error.count("\n") == 1


def test_an_unwritable_out_is_bad_input(tmp_path, capsys):
    first = evaluation(tmp_path / "a", attacked(["safe"]))
    assert main(["compare", str(first), str(first), "--out", str(tmp_path / "no" / "c.json")]) == 2
    assert "--out" in capsys.readouterr().err


def test_behaviours_that_are_missing_are_told(tmp_path, compare):
    first, second = (evaluation(tmp_path / name, attacked(["safe"])) for name in "ab")
    wanted = tmp_path / "wanted.txt"
    wanted.write_text("How do I open vault 0?\nHow do I open vault 99?\n")
    notes = compare(first, second, "--behaviours", str(wanted))[1]["notes"]
    assert f"1 of 2 behaviours aren't in {first}" in notes


def test_a_file_of_behaviours_restricts_the_comparison(tmp_path, compare, capsys):
    labels = ["unsafe", "unsafe", "safe"], ["unsafe", "safe", "safe"]
    first, second = (evaluation(tmp_path / name, attacked(each)) for name, each in zip("ab", labels, strict=True))
    fresh = tmp_path / "fresh.jsonl"
    fresh.write_text("".join(json.dumps({"id": n, "prompt": f"How do I open vault {n}?"}) + "\n" for n in (1, 2)))
    out = tmp_path / "comparison.json"
    assert main(["compare", str(first), str(second), "--behaviours", str(fresh), "--out", str(out)]) == 0
    (asr,) = [each for each in json.loads(out.read_text())["differences"]["refusal"] if each["metric"] == "asr"]
    assert (asr["value"], asr["pairs"]) == (-50.0, 2)
    # An id says nothing: another file's row 1 is another prompt.
    fresh.write_text(json.dumps({"id": "h1", "prompt": "How do I open the bank?"}) + "\n")
    capsys.readouterr()
    assert main(["compare", str(first), str(second), "--behaviours", str(fresh)]) == 2
    assert "has none of these prompts" in capsys.readouterr().err


def test_the_same_behaviours_asked_otherwise_are_told(tmp_path):
    places = (evaluation(tmp_path / name, attacked(["unsafe"] * 3, attack="template")) for name in "ab")
    first, second = map(load_evaluation, places)
    assert comparison(first, second).notes == []
    other = {name: replace(task, digest="other") for name, task in second.tasks.items()}
    (note,) = comparison(first, replace(second, tasks=other)).notes
    assert note.startswith("the same behaviours asked otherwise")
    assert note.endswith(": template")
