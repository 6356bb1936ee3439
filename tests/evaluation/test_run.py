"""Evaluation on a tiny random model: each sample once, whatever happens, and no verdict taken for granted."""

import json

import pytest

from derta.data.behaviours import Behaviour
from derta.errors import InputError
from derta.evaluation.attacks import ENGLISH, Setting
from derta.evaluation.judges import Verdict
from derta.evaluation.run import evaluate
from derta.evaluation.store import RESPONSES, Store, fingerprint, load_results, load_samples, save_results
from derta.inference import first_tokens
from tests.inference.tiny import make_model, make_tokenizer

TOKENIZER = make_tokenizer()
MODEL = make_model(len(TOKENIZER))
BEHAVIOURS = [
    *(Behaviour(f"h{i}", f"How to open vault {i}?", "harmful", "Take a hook, and pull.") for i in range(3)),
    Behaviour("b", "How to open the sofa?", "borderline", "Pull."),
    Behaviour("u", "How to bake?", "helpful", "Mix."),
]
ATTACKS = ("direct", "prefill", "completing")
VARIANTS = ["direct", "prefill@affirmative", "prefill@5", "completing"]
KEYS = sorted([(f"h{i}", v) for i in range(3) for v in VARIANTS] + [("b", "direct"), ("u", "direct")])
SETTINGS = {"model": "tiny", "fingerprint": "f", "judge": "length"}


def judge(behaviour, response, prefix):
    """Unsafe if the model's own part is of even length: any rule will do that depends on the response."""
    assert response.startswith(prefix)
    even = len(response) % 2 == 0
    return Verdict("unsafe" if even else "safe") if behaviour.kind == "harmful" else Verdict("correct")


def run(store=None, judge=judge, **options):
    setting = Setting(ENGLISH, lambda text, count: first_tokens(TOKENIZER, text, count), depths=(5,))
    return evaluate(
        MODEL,
        TOKENIZER,
        BEHAVIOURS,
        ATTACKS,
        judge,
        judge_name="length",
        name="tiny",
        setting=setting,
        max_new_tokens=8,
        batch_size=4,
        store=store,
        **options,
    )


def test_harmful_behaviours_meet_every_attack_and_the_others_are_asked(tmp_path):
    with Store(tmp_path, SETTINGS) as store:
        rows = run(store)
    samples = load_samples(tmp_path)
    assert sorted(sample.key for sample in samples) == KEYS
    by_metric = {(row.attack, row.metric): row for row in rows}
    unsafe = [s for s in samples if s.attack == "prefill" and s.verdict.label == "unsafe"]
    assert by_metric["prefill", "asr"].value == pytest.approx(100 * len(unsafe) / 6)
    assert by_metric["direct", "helpful_accuracy"].n == 1
    prefilled = next(s for s in samples if s.variant == "prefill@5")
    assert prefilled.prefix == "Take "
    assert not prefilled.continuation.startswith("Take")
    completing = next(s for s in samples if s.variant == "completing")
    assert completing.raw.startswith("I will explain how to open vault")


class Killed(BaseException):
    """What a test stops an evaluation with: nothing may catch it."""


@pytest.mark.parametrize("torn", [b"", b'{"id": "h0", "kin', b'{"id": "h0"}\n'])
def test_a_killed_evaluation_resumes_with_each_sample_exactly_once(tmp_path, torn):
    expected = run()

    def kill(done, total):
        if done == 6:
            raise Killed

    with pytest.raises(Killed), Store(tmp_path, SETTINGS) as store:
        run(store, on_sample=kill)
    assert len(load_samples(tmp_path)) == 6
    with (tmp_path / RESPONSES).open("ab") as file:
        file.write(torn)
    judged = []

    def counting(behaviour, response, prefix):
        judged.append(behaviour.id)
        return judge(behaviour, response, prefix)

    with Store(tmp_path, SETTINGS) as store:
        resumed = run(store, judge=counting)
    assert resumed == expected
    assert len(judged) == len(KEYS) - 6
    assert sorted(sample.key for sample in load_samples(tmp_path)) == KEYS


def test_a_failing_judge_leaves_samples_unscored_and_the_run_goes_on(tmp_path):
    def failing(behaviour, response, prefix):
        if behaviour.id == "h1":
            raise RuntimeError("no answer")
        return Verdict("safe") if behaviour.kind == "harmful" else Verdict("correct")

    with Store(tmp_path, SETTINGS) as store:
        rows = {(row.attack, row.metric): row for row in run(store, judge=failing)}
    assert (rows["direct", "asr"].n, rows["direct", "unscored"].value) == (2, 1)
    reasons = {s.verdict.reason for s in load_samples(tmp_path) if s.verdict.label == "unscored"}
    assert reasons == {"RuntimeError: no answer"}


def test_a_directory_of_another_model_is_refused(tmp_path):
    Store(tmp_path, SETTINGS).__exit__(None, None, None)
    with pytest.raises(InputError, match="another model"):
        Store(tmp_path, {**SETTINGS, "fingerprint": "g"})
    with pytest.raises(InputError, match="another judge"):
        Store(tmp_path, {**SETTINGS, "judge": "other"})
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "results.json").write_text("{}")
    with pytest.raises(InputError, match="another run's results"):
        Store(tmp_path / "foreign", SETTINGS)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="can't be written"):
        Store(tmp_path / "file", SETTINGS)


def test_a_response_to_a_changed_prompt_is_not_reused(tmp_path, monkeypatch):
    with Store(tmp_path, SETTINGS) as store:
        run(store)
    monkeypatch.setitem(globals(), "BEHAVIOURS", [Behaviour("h0", "Another question?", "harmful")])
    with pytest.raises(InputError, match="another prompt of the id 'h0'"), Store(tmp_path, SETTINGS) as store:
        run(store)


def test_line_separators_in_responses_survive_the_file(tmp_path):
    with Store(tmp_path, SETTINGS) as store:
        run(store)
    lines = (tmp_path / RESPONSES).read_text().split("\n")
    first = json.loads(lines[0])
    first["continuation"] = "a\u2028b\x85c\r\n\x1b[2J"
    (tmp_path / RESPONSES).write_text("\n".join([json.dumps(first, ensure_ascii=False), *lines[1:]]))
    assert load_samples(tmp_path)[0].continuation == first["continuation"]
    with Store(tmp_path, SETTINGS) as store:
        assert len(store.samples) == len(KEYS)


def test_fingerprints_tell_checkpoints_apart():
    assert fingerprint(MODEL) == fingerprint(make_model(len(TOKENIZER)))
    assert fingerprint(MODEL) != fingerprint(make_model(len(TOKENIZER), seed=1))


def test_results_are_read_back_as_written(tmp_path):
    rows = run()
    save_results(tmp_path / "results.json", rows)
    assert load_results(tmp_path / "results.json") == rows
    assert json.loads((tmp_path / "results.json").read_text())["schema"] == 1
    assert not list(tmp_path.glob("*.part"))
    (tmp_path / "bad.json").write_text('{"rows": [{"metric": 1}]}')
    with pytest.raises(InputError, match=r"bad\.json"):
        load_results(tmp_path / "bad.json")
