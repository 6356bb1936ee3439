"""An evaluation's directory: whose it is, and that what is read is what was written."""

import json
from dataclasses import replace

import pytest

from derta.errors import InputError
from derta.evaluation.results.metrics import ModelId
from derta.evaluation.results.store import (
    RESPONSES,
    RESULTS,
    SETTINGS,
    claim,
    find_evaluations,
    load_evaluation,
    load_results,
    load_samples,
    save_results,
)
from tests.evaluation.results.made import evaluation, good_samples, sample

OF_TINY = {"model": "tiny", "fingerprint": "f", "judges": ["length"]}


def test_a_directory_of_another_evaluation_is_refused(tmp_path):
    claim(tmp_path, OF_TINY, {"direct": "1"})
    claim(tmp_path, {**OF_TINY, "model": "the same by another path"}, {"direct": "1"})
    with pytest.raises(InputError, match="another model"):
        claim(tmp_path, {**OF_TINY, "fingerprint": "g"}, {})
    with pytest.raises(InputError, match="another judges"):
        claim(tmp_path, {**OF_TINY, "judges": ["other"]}, {})
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / RESULTS).write_text("{}")
    with pytest.raises(InputError, match="another run's results"):
        claim(tmp_path / "foreign", OF_TINY, {})
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="can't be written"):
        claim(tmp_path / "file", OF_TINY, {})


def test_tasks_may_be_added_and_may_not_change(tmp_path):
    claim(tmp_path, OF_TINY, {"direct": "1"})
    claim(tmp_path, OF_TINY, {"prefill": "2"})
    assert json.loads((tmp_path / SETTINGS).read_text())["tasks"] == {"direct": "1", "prefill": "2"}
    with pytest.raises(InputError, match="holds direct for other prompts"):
        claim(tmp_path, OF_TINY, {"direct": "3"})


def test_responses_are_read_back_as_written(tmp_path):
    text = "a\u2028b\x85c\r\n\x1b[2J\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16")
    written = [sample(0), sample(1, "unsafe", text=text)]
    evaluation(tmp_path, written)
    assert load_samples(tmp_path) == written
    (tmp_path / RESPONSES).write_text('{"id": "h0"}\n')
    with pytest.raises(InputError, match=r"responses\.jsonl:1: not a sample"):
        load_samples(tmp_path)
    with pytest.raises(InputError, match="can't be read"):
        load_samples(tmp_path / "nowhere")


def test_a_sample_that_stands_twice_is_refused(tmp_path):
    evaluation(tmp_path, [sample(0)])
    (tmp_path / RESPONSES).write_text((tmp_path / RESPONSES).read_text() * 2)
    with pytest.raises(InputError, match=r"responses\.jsonl:2: 'h0' under direct stands twice"):
        load_samples(tmp_path)


def test_results_are_read_back_as_written(tmp_path):
    rows = evaluation(tmp_path, [sample(0), sample(1, "unsafe")])
    assert load_results(tmp_path / RESULTS) == rows
    assert json.loads((tmp_path / RESULTS).read_text())["schema"] == 3
    assert not list(tmp_path.glob("*.part"))
    (tmp_path / "bad.json").write_text('{"schema": 3, "rows": [{"metric": 1}]}')
    with pytest.raises(InputError, match=r"bad\.json: row 1"):
        load_results(tmp_path / "bad.json")
    (tmp_path / "old.json").write_text('{"schema": 2, "rows": []}')
    with pytest.raises(InputError, match=r"old\.json: schema 2; this version reads 3: evaluate again"):
        load_results(tmp_path / "old.json")


def test_an_evaluation_is_read_with_its_model_plan_samples_and_rows(tmp_path):
    samples, model = good_samples(6), ModelId("runs/tuned", "f00d", "derta", 1)
    rows = evaluation(tmp_path, samples, model=model)
    found = load_evaluation(tmp_path)
    assert (found.model, found.samples, found.rows) == (model, samples, rows)
    assert list(found.plan.tasks) == ["direct", "prefill", "borderline", "gsm8k"]
    assert found.plan.judges == ["refusal", "answers"]
    assert found.plan.find_unmet(samples) == []
    (unmet,) = found.plan.find_unmet([each for each in samples if each.key[1:3] != ("h3", "prefill@5")])
    assert str(unmet) == "prefill@5: 6 verdicts of refusal were planned, 5 are there"


def test_the_last_digits_of_another_machine_are_no_lie(tmp_path):
    rows = evaluation(tmp_path, [sample(number, "unsafe" if number else "safe") for number in range(7)])
    document = json.loads((tmp_path / RESULTS).read_text())
    save_results(
        tmp_path / RESULTS,
        [replace(row, value=row.value * (1 + 1e-15)) if row.metric == "asr" else row for row in rows],
        counted_from=document["counted_from"],
    )
    assert load_evaluation(tmp_path).rows == rows


def test_a_directory_of_several_evaluations_names_them(tmp_path):
    for name in ("a", "b"):
        evaluation(tmp_path / name, [sample(0)])
    with pytest.raises(InputError, match=r"results\.json: can't be read"):
        find_evaluations(tmp_path)
    save_results(tmp_path / RESULTS, [], evaluations=["a", "b"])
    assert find_evaluations(tmp_path) == [tmp_path / "a", tmp_path / "b"]
    assert find_evaluations(tmp_path / "a") == [tmp_path / "a"]
    save_results(tmp_path / RESULTS, [], evaluations=["a"])
    with pytest.raises(InputError, match="names other evaluations than lie in"):
        find_evaluations(tmp_path)
