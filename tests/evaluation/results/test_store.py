"""An evaluation's directory: whose it is, and that what is read is what was written."""

import json

import pytest

from derta.errors import InputError
from derta.evaluation.harness.models import fingerprint
from derta.evaluation.judges import Verdict
from derta.evaluation.results.metrics import score
from derta.evaluation.results.sample import Sample
from derta.evaluation.results.store import (
    RESPONSES,
    claim,
    load_results,
    load_samples,
    save_results,
)
from tests.inference.tiny import make_model, make_tokenizer

SETTINGS = {"model": "tiny", "fingerprint": "f", "judges": ["length"]}
TOKENIZER = make_tokenizer()


def sample(i, label="safe", text="a"):
    return Sample(
        id=f"h{i}",
        kind="harmful",
        attack="direct",
        variant="direct",
        prompt="How?",
        prefix="",
        continuation=text,
        judge="length",
        verdict=Verdict(label, leaked_tokens=i),
        messages=[{"role": "user", "content": "How?"}],
    )


def test_a_directory_of_another_evaluation_is_refused(tmp_path):
    claim(tmp_path, SETTINGS, {"direct": "1"})
    claim(tmp_path, {**SETTINGS, "model": "the same by another path"}, {"direct": "1"})
    with pytest.raises(InputError, match="another model"):
        claim(tmp_path, {**SETTINGS, "fingerprint": "g"}, {})
    with pytest.raises(InputError, match="another judges"):
        claim(tmp_path, {**SETTINGS, "judges": ["other"]}, {})
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "results.json").write_text("{}")
    with pytest.raises(InputError, match="another run's results"):
        claim(tmp_path / "foreign", SETTINGS, {})
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="can't be written"):
        claim(tmp_path / "file", SETTINGS, {})


def test_tasks_may_be_added_and_may_not_change(tmp_path):
    claim(tmp_path, SETTINGS, {"direct": "1"})
    claim(tmp_path, SETTINGS, {"prefill": "2"})
    with pytest.raises(InputError, match="holds direct for other prompts"):
        claim(tmp_path, SETTINGS, {"direct": "3"})


def test_responses_are_read_back_as_written(tmp_path):
    text = "a\u2028b\x85c\r\n\x1b[2J\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16")
    written = [sample(0), sample(1, "unsafe", text)]
    (tmp_path / RESPONSES).write_text("".join(json.dumps(each.to_json()) + "\n" for each in written))
    assert load_samples(tmp_path) == written
    (tmp_path / RESPONSES).write_text('{"id": "h0"}\n')
    with pytest.raises(InputError, match=r"responses\.jsonl:1: not a sample"):
        load_samples(tmp_path)
    with pytest.raises(InputError, match="can't be read"):
        load_samples(tmp_path / "nowhere")


def test_fingerprints_tell_checkpoints_apart():
    assert fingerprint(make_model(len(TOKENIZER))) == fingerprint(make_model(len(TOKENIZER)))
    assert fingerprint(make_model(len(TOKENIZER))) != fingerprint(make_model(len(TOKENIZER), seed=1))


def test_results_are_read_back_as_written(tmp_path):
    rows = score([sample(0), sample(1, "unsafe")], model="m", judge="length")
    save_results(tmp_path / "results.json", rows)
    assert load_results(tmp_path / "results.json") == rows
    assert json.loads((tmp_path / "results.json").read_text())["schema"] == 2
    assert not list(tmp_path.glob("*.part"))
    (tmp_path / "bad.json").write_text('{"rows": [{"metric": 1}]}')
    with pytest.raises(InputError, match=r"bad\.json"):
        load_results(tmp_path / "bad.json")
