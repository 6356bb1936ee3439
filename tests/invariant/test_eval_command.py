"""`derta eval` as a user calls it."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest

from derta.cli import main
from derta.organism import path
from tests.evaluation.results.made import load_samples

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
    found = {(row["variant"] or row["attack"], row["metric"]): row for row in rows(evaluated)}
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
    first = {path: path.stat().st_mtime_ns for path in (out / "logs").glob("*.eval")}
    assert first
    assert main([*EVAL, "--out", str(out)]) == 0
    assert {path: path.stat().st_mtime_ns for path in first} == first
    assert rows(out) == rows(evaluated)


def test_harmless_prompts_are_asked_in_the_form_of_attacks_as_well(evaluated, tmp_path, capsys):
    out = tmp_path / "out"
    shutil.copytree(evaluated, out)
    forms = ["--harmless-under", "direct,template,selfcipher+prefill"]
    assert main([*EVAL, *forms, "--out", str(out)]) == 0
    asked = {(row["metric"], row["attack"]): row["value"] for row in rows(out)}
    for attack in ("direct", "template", "selfcipher+prefill"):
        assert asked["over_refusal", attack] == 0.0
        assert asked["helpful_accuracy", attack] == 100.0
    # They are nobody's attack, and what was measured before stands as it was.
    assert ("asr", "template") not in asked
    assert [row for row in rows(out) if row["attack"] in ("direct", "prefill", "completing")] == rows(evaluated)
    assert "refuses borderline ↓" in capsys.readouterr().out
    assert main(["gate", str(out), "--max-over-refusal", "70", "--require", "borderline-under-template"]) == 0
    assert main(["gate", str(out), "--max-over-refusal", "70", "--require", "template"]) == 1


COMMAND = ["eval", "--model", "organism", "--attacks", "direct,prefill", "--limit", "40", "--out"]


def start(out):
    """Start an evaluation and wait until some of its samples are taken."""
    command = [sys.executable, "-m", "derta.cli", *COMMAND, str(out)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    deadline = time.monotonic() + 900
    while process.poll() is None and time.monotonic() < deadline:
        if any(path.stat().st_size > 5_000 for path in (out / "logs").glob("*prefill*.eval")):
            return process
        time.sleep(0.01)
    raise AssertionError(f"the evaluation ended before it could be stopped: {process.communicate()[1]}")


def finish(out):
    assert main([*COMMAND, str(out)]) == 0
    counts = Counter(sample.key for sample in load_samples(out))
    assert len(counts) == 40 * 6 + 80
    assert set(counts.values()) == {1}


def test_a_killed_evaluation_goes_on_and_has_each_sample_once(tmp_path):
    process = start(tmp_path / "out")
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "out" / "results.json").exists()
    finish(tmp_path / "out")


def test_an_interrupted_evaluation_exits_with_130_and_can_go_on(tmp_path):
    process = start(tmp_path / "out")
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=600)
    assert process.returncode == 130
    assert "derta: interrupted; the same command goes on" in told
    assert not (tmp_path / "out" / "results.json").exists()
    finish(tmp_path / "out")


def test_several_models_are_evaluated_side_by_side(tmp_path):
    for name in ("a", "b"):
        shutil.copytree(path(), tmp_path / name)
    models = [str(tmp_path / "a"), str(tmp_path / "b")]
    out = tmp_path / "out"
    assert (
        main(
            [
                "eval",
                "--model",
                *models,
                "--behaviours",
                "organism",
                "--limit",
                "1",
                "--attacks",
                "direct",
                "--out",
                str(out),
            ]
        )
        == 0
    )
    assert {row["model"] for row in rows(out)} == set(models)
    assert {row["model"] for row in rows(out / "a")} == {models[0]}
    assert (out / "report.html").is_file()


def test_the_directory_of_another_model_is_refused(evaluated, tmp_path, capsys):
    from derta.generation import load_model

    model, tokenizer = load_model(str(path()))
    model.lm_head.weight.data += 0.1
    model.save_pretrained(tmp_path / "other")
    tokenizer.save_pretrained(tmp_path / "other")
    capsys.readouterr()
    line = error(
        capsys,
        "eval",
        "--model",
        str(tmp_path / "other"),
        "--behaviours",
        "organism",
        "--limit",
        "2",
        "--out",
        str(evaluated),
    )
    assert "results of another model" in line


def test_method_and_seed_come_from_the_training_run(tmp_path):
    shutil.copytree(path(), tmp_path / "m")
    (tmp_path / "m" / "derta.json").write_text('{"method": "rto", "seed": 7, "base": "organism"}')
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
    other = tmp_path / "other"
    shutil.copytree(path(), other)
    config = json.loads((other / "config.json").read_text())
    del config["organism_world"]
    (other / "config.json").write_text(json.dumps(config))
    assert "--behaviours: say what to ask" in error(capsys, "eval", "--model", str(other), *out)
    assert "--depths: no harmful answer is longer than 400" in error(capsys, *EVAL, "--depths", "5,400", *out)
    assert "--max-new-tokens: 0" in error(capsys, *EVAL, "--max-new-tokens", "0", *out)
    assert "--system: the system prompt is empty" in error(capsys, *EVAL, "--system", " ", *out)
    assert "no config.json" in error(capsys, "eval", "--model", str(tmp_path), *out)
    on_file = [*EVAL, "--behaviours", str(good)]
    assert "knows only the organism's own" in error(capsys, *on_file, "--judge", "organism", *out)
    assert "say which model plays it" in error(capsys, *on_file, "--judge", "guideline", *out)
    assert "this judge is no model" in error(capsys, *on_file, "--judge", "refusal=organism", *out)
    assert "--depths" in error(capsys, *EVAL, "--depths", "5,many", *out)
    assert "(did you mean 'gcg_steps'?)" in error(capsys, *EVAL, "--search", "gcg_step=3", *out)
    assert "(did you mean 'gsm8k'?)" in error(capsys, *EVAL, "--task", "gsm8=x", *out)
    assert "write NAME=VALUE" in error(capsys, *EVAL, "--model-role", "attacker", *out)
    assert "don't fit the model's context of 512" in error(capsys, *EVAL, "--max-new-tokens", "600", *out)
    # Attacks that talk are measured by what they ask first.
    assert "don't fit" in error(capsys, *EVAL, "--attacks", "insist", "--max-new-tokens", "600", *out)
    assert "no such file" in error(capsys, *EVAL, "--templates", "nothing.jsonl", "--attacks", "template", *out)
    assert "--attacks prefill" in error(
        capsys, "eval", "--model", f"hf/{path()}", "--attacks", "prefill", "--behaviours", str(good), *out
    )
    form = ["eval", "--model", f"hf/{path()}", "--borderline", str(good), "--harmless-under", "prefill"]
    assert "--attacks prefill: " in error(capsys, *form, *out)
    assert "(did you mean 'organism'?)" in error(capsys, *EVAL, "--judge", "organsm", *out)
    assert "--harmless-under insist: it looks at" in error(capsys, *EVAL, "--harmless-under", "insist", *out)
    assert "--harmless-under: unknown attack 'prefil'" in error(capsys, *EVAL, "--harmless-under", "prefil", *out)
    assert "bad.jsonl:2" in error(capsys, *EVAL, "--behaviours", str(bad), *out)
    assert "no such file" in error(capsys, *EVAL, "--behaviours", "nothing.jsonl", *out)
    assert "--limit" in error(capsys, "eval", "--model", "organism", "--limit", "0", *out)
    assert not (tmp_path / "out").exists()


def test_a_dry_run_shows_the_plan_and_loads_no_weights(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("derta.evaluation.run.load_model", lambda *args: pytest.fail("loaded"))
    out = tmp_path / "out"
    assert main([*EVAL, "--attacks", "direct,prefill,pair", "--depths", "5,10", "--dry-run", "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    for said in ("prefill@5", "prefill@10", "prefill@affirmative", "pair", "borderline", "tokens of"):
        assert said in shown
    assert "prefill@20" not in shown
    assert not out.exists()


def test_a_model_without_a_system_turn_refuses_a_system_prompt(tmp_path, capsys):
    line = error(capsys, *EVAL, "--attacks", "direct", "--system", "Be kind .", "--out", str(tmp_path / "out"))
    assert "knows the roles 'user' and 'assistant' only" in line
