"""An evaluation's directory: whose it is, and that nothing is read but what was written."""

import json
from dataclasses import replace

import pytest

from derta.errors import InputError
from derta.evaluation.results.metrics import ModelId
from derta.evaluation.results.store import (
    RESPONSES,
    RESULTS,
    SETTINGS,
    Evaluation,
    Task,
    claim,
    find_evaluations,
    load_evaluation,
    save_evaluation,
)
from tests.evaluation.results.made import evaluation, good_samples, judged, load_samples, sample, signed

OF_TINY = {"model": "tiny", "fingerprint": "f", "judges": ["length"]}


def task(digest: str, attack: str = "direct") -> Task:
    return Task(attack, None, {attack: 1}, ["refusal"], digest)


def test_a_directory_of_another_evaluation_is_refused(tmp_path):
    claim(tmp_path, OF_TINY, {"direct": task("1")})
    claim(tmp_path, {**OF_TINY, "model": "the same by another path"}, {"direct": task("1")})
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
    evaluation(tmp_path, [sample(0)])
    settings = dict(load_evaluation(tmp_path).settings)
    claimed = claim(tmp_path, settings, {"prefill": task("2", "prefill")})
    assert (list(claimed.tasks), claimed.samples) == (["direct", "prefill"], [sample(0)])
    with pytest.raises(InputError, match="holds direct for other prompts"):
        claim(tmp_path, settings, {"direct": task("3")})
    # What was begun and isn't finished is no evaluation to decide on.
    with pytest.raises(InputError, match=r"evaluation\.json: says something else than responses\.jsonl"):
        load_evaluation(tmp_path)
    more = replace(claimed, samples=[*claimed.samples, sample(0, attack="prefill")])
    save_evaluation(more)
    assert load_evaluation(tmp_path).rows == more.rows


def test_responses_are_read_back_as_written(tmp_path):
    text = "a\u2028b\x85c\r\n\x1b[2J\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16")
    written = [sample(0), sample(1, "unsafe", text=text)]
    evaluation(tmp_path, written)
    assert load_samples(tmp_path) == written
    assert not list(tmp_path.glob("*.part"))
    (tmp_path / RESPONSES).write_text('{"id": "h0"}\n')
    with pytest.raises(InputError, match=r"responses\.jsonl: schema None"):
        load_samples(tmp_path)
    with pytest.raises(InputError, match="can't be read"):
        load_samples(tmp_path / "nowhere")


def test_results_are_for_readers_and_never_read_back(tmp_path):
    rows = evaluation(tmp_path, [sample(0), sample(1, "unsafe")])
    document = json.loads((tmp_path / RESULTS).read_text())
    assert document["schema"] == 4
    assert document["rows"] == [row.to_json() for row in rows]
    (tmp_path / RESULTS).unlink()
    assert load_evaluation(tmp_path).rows == rows


def test_an_evaluation_is_read_with_its_model_tasks_samples_and_rows(tmp_path):
    samples, model = good_samples(6), ModelId("runs/tuned", "f00d", "derta", 1)
    rows = evaluation(tmp_path, samples, model=model)
    found = load_evaluation(tmp_path)
    assert (found.model, found.samples, found.rows) == (model, samples, rows)
    assert list(found.tasks) == ["direct", "prefill", "borderline", "gsm8k"]
    assert found.judges == ["refusal", "answers"]
    assert found.find_missing() == []
    assert list(found.to_pandas().metric) == [row.metric for row in rows]


def missing(evaluation: Evaluation) -> list[str]:
    return [str(each) for each in evaluation.find_missing()]


def test_what_was_asked_and_is_not_there_is_named(tmp_path):
    whole = [replace(each, verdicts={**each.verdicts, "guideline": each.verdict}) for each in good_samples(6)[:-1]]
    evaluation(tmp_path, whole)
    found = load_evaluation(tmp_path)
    left = [each for each in found.samples if (each.id, each.variant) != ("h3", "prefill@5")]
    assert missing(replace(found, samples=left)) == [
        f"prefill@5: 6 verdicts of {judge} were planned, 5 are there" for judge in ("refusal", "guideline")
    ]
    by_one = [each.by("refusal") if each.variant == "prefill@20" else each for each in found.samples]
    assert missing(replace(found, samples=by_one)) == ["prefill@20: 6 verdicts of guideline were planned, 0 are there"]


def test_a_judge_without_a_single_verdict_is_named_and_broken_output_is_not_its_fault(tmp_path):
    evaluation(tmp_path, [sample(0)])
    found = load_evaluation(tmp_path)
    unscored = judged(sample(0), label="unscored")
    assert missing(replace(found, samples=[unscored])) == ["direct: 1 verdicts of refusal were planned, 0 are there"]
    assert missing(replace(found, samples=[replace(unscored, broken="empty")])) == []


def test_verdicts_that_nobody_asked_for_are_refused_even_under_a_seal(tmp_path):
    evaluation(tmp_path, [sample(0)])
    found = load_evaluation(tmp_path)
    for more in ([signed(sample(0), "mine")], [sample(0)] * 2, [sample(0, attack="warmup")], [sample(0, epoch=2)]):
        save_evaluation(replace(found, samples=more))
        with pytest.raises(InputError, match="was never asked for, or stands twice"):
            load_evaluation(tmp_path)


def test_the_evaluations_below_a_directory_are_found(tmp_path):
    with pytest.raises(InputError, match="holds no evaluation"):
        find_evaluations(tmp_path)
    for name in ("a", "b"):
        evaluation(tmp_path / name, [sample(0)])
    assert find_evaluations(tmp_path) == [tmp_path / "a", tmp_path / "b"]
    assert find_evaluations(tmp_path / "a") == [tmp_path / "a"]
    assert json.loads((tmp_path / "a" / SETTINGS).read_text())["tasks"]["direct"]["variants"] == {"direct": 1}
