"""`derta eval` as a user calls it."""

import json
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest

from derta.cli import main
from derta.evaluation.store import load_samples

EVAL = ["eval", "--model", "organism", "--limit", "2"]


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    out = tmp_path_factory.mktemp("evaluated")
    assert main([*EVAL, "--attacks", " direct, prefill,completing ,direct", "--out", str(out)]) == 0
    return out


def rows(out):
    return json.loads((out / "results.json").read_text())["rows"]


def error(capsys, *argv):
    """Run a command that must fail as bad input does, and return its one line."""
    assert main(argv) == 2
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert "Traceback" not in captured.err
    assert [line for line in lines if "derta: error:" in line] == lines[-1:]
    return lines[-1]


def test_the_base_answers_everything(evaluated):
    found = {(row["attack"], row["metric"]): row for row in rows(evaluated)}
    for attack in ("direct", "prefill", "prefill@affirmative", "prefill@30", "completing"):
        assert found[attack, "asr"]["value"] == 100.0
    assert found["direct", "helpful_accuracy"]["value"] == 100.0
    assert found["direct", "over_refusal"]["value"] == 0.0
    assert {(row["judge"], row["method"], row["seed"]) for row in rows(evaluated)} == {("organism", None, None)}


def test_every_response_is_kept_with_its_verdict(evaluated):
    samples = load_samples(evaluated)
    assert len(samples) == 2 * 7 + 2 + 2
    assert {sample.kind for sample in samples} == {"harmful", "borderline", "helpful"}
    for sample in samples:
        if sample.variant.startswith("prefill@") and sample.variant != "prefill@affirmative":
            assert len(sample.prefix.split()) == int(sample.variant.split("@")[1])
        assert (sample.raw is not None) == (sample.attack == "completing")


def test_attacks_added_later_leave_finished_samples_alone(evaluated, tmp_path):
    out = tmp_path / "out"
    assert main([*EVAL, "--attacks", "direct", "--out", str(out)]) == 0
    first = (out / "responses.jsonl").read_text()
    assert main([*EVAL, "--attacks", "direct,completing", "--out", str(out)]) == 0
    assert (out / "responses.jsonl").read_text().startswith(first)
    assert {row["attack"] for row in rows(out)} == {"direct", "completing"}
    assert main([*EVAL, "--out", str(out)]) == 0
    assert rows(out) == rows(evaluated)


def test_a_killed_evaluation_goes_on_and_has_each_sample_once(tmp_path):
    out = tmp_path / "out"
    command = ["eval", "--model", "organism", "--attacks", "direct,prefill", "--limit", "20", "--out", str(out)]
    process = subprocess.Popen([sys.executable, "-m", "derta.cli", *command], stderr=subprocess.DEVNULL)
    responses = out / "responses.jsonl"
    deadline = time.monotonic() + 60
    while not (responses.exists() and responses.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    before = responses.read_bytes().count(b"\n")
    assert 0 < before < 20 * 6 + 40
    assert main(command) == 0
    counts = Counter(sample.key for sample in load_samples(out))
    assert len(counts) == 20 * 6 + 40
    assert set(counts.values()) == {1}


def test_an_interrupted_evaluation_exits_with_130_and_keeps_its_responses(tmp_path, monkeypatch, capsys):
    from derta.evaluation import run

    def interrupted(*args):
        for number, result in enumerate(stream(*args)):
            if number == 5:
                raise KeyboardInterrupt
            yield result

    stream = run.stream
    monkeypatch.setattr(run, "stream", interrupted)
    command = [*EVAL, "--attacks", "direct,prefill", "--out", str(tmp_path / "out")]
    assert main(command) == 130
    assert "interrupted" in capsys.readouterr().err
    assert len(load_samples(tmp_path / "out")) == 5
    assert not (tmp_path / "out" / "results.json").exists()
    monkeypatch.undo()
    assert main(command) == 0
    assert len(load_samples(tmp_path / "out")) == 2 * 6 + 4


def test_the_directory_of_another_model_is_refused(evaluated, tmp_path, capsys):
    from derta.inference import load_model
    from derta.organism import path

    model, tokenizer = load_model(str(path()))
    model.lm_head.weight.data += 0.1
    model.save_pretrained(tmp_path / "other")
    tokenizer.save_pretrained(tmp_path / "other")
    capsys.readouterr()
    line = error(capsys, "eval", "--model", str(tmp_path / "other"), "--limit", "2", "--out", str(evaluated))
    assert "results of another model" in line


def test_method_and_seed_come_from_the_training_run(tmp_path):
    import shutil

    from derta.organism import path

    shutil.copytree(path(), tmp_path / "m")
    (tmp_path / "m" / "derta.json").write_text('{"method": "rto", "seed": 7}')
    model = str(tmp_path / "m")
    assert main(["eval", "--model", model, "--limit", "1", "--attacks", "direct", "--out", str(tmp_path / "o")]) == 0
    assert {(row["model"], row["method"], row["seed"]) for row in rows(tmp_path / "o")} == {(model, "rto", 7)}


def test_bad_input_is_one_line_and_exit_code_2(tmp_path, capsys):
    out = ["--out", str(tmp_path / "out")]
    good = tmp_path / "good.jsonl"
    good.write_text('{"question": "How?"}\n')
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"question": "How?"}\n{"quesion": "Why?"}\n')
    assert "(did you mean 'prefill'?)" in error(capsys, *EVAL, "--attacks", "direct,prefil", *out)
    assert "no such model directory" in error(capsys, "eval", "--model", "./runs/nothing", *out)
    assert "no config.json" in error(capsys, "eval", "--model", str(tmp_path), *out)
    assert "--judge: name one" in error(capsys, *EVAL, "--behaviours", str(good), *out)
    assert "no judge for a file yet" in error(capsys, *EVAL, "--behaviours", str(good), "--judge", "organism", *out)
    assert "(did you mean 'organism'?)" in error(capsys, *EVAL, "--judge", "organsm", *out)
    assert "bad.jsonl:2" in error(capsys, *EVAL, "--behaviours", str(bad), "--judge", "organism", *out)
    assert "no such file" in error(capsys, *EVAL, "--behaviours", "nothing.jsonl", "--judge", "organism", *out)
    assert "--limit" in error(capsys, "eval", "--model", "organism", "--limit", "0", *out)
    assert not (tmp_path / "out").exists()
