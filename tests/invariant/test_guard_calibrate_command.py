"""`derta guard calibrate` as a user calls it."""

import json
from pathlib import Path

import pytest

from derta.cli import main
from derta.guard.calibration import load_calibration
from derta.organism import behaviours


def written(path, kind, span, answers=True):
    rows = [{"prompt": each.prompt, "response": each.response} for each in behaviours(kind)[span]]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def files(tmp_path):
    harmful = written(tmp_path / "harmful.jsonl", "harmful", slice(6))
    harmless = written(tmp_path / "harmless.jsonl", "helpful", slice(6))
    held_out = written(tmp_path / "held-out.jsonl", "helpful", slice(6, 30))
    return harmful, harmless, held_out


def test_answers_are_watched_and_a_guard_is_calibrated(tmp_path, files, capsys):
    harmful, harmless, held_out = files
    out = tmp_path / "out"
    watched = ["guard", "calibrate", harmful, "--model", "organism", "--harmless", harmless, "--out", str(out)]
    compare = ["--compare", "other=organism"]
    assert main([*watched, "--held-out", held_out, "--max-false-stops", "5", *compare]) == 0
    shown = capsys.readouterr().out
    assert "wrote" in shown
    assert "threshold" in shown
    document = json.loads((out / "monitor.json").read_text())
    assert {row["detector"] for row in document["rows"]} == {"model", "other"}
    found = {(row["detector"], row["metric"], row["depth"]): row for row in document["rows"]}
    assert found["model", "auroc", 0]["value"] == found["other", "auroc", 0]["value"]
    assert found["model", "detection", None]["n"] == 6
    guard = load_calibration(out)
    assert guard.threshold == document["thresholds"]["model"]
    assert guard.canaries == ()
    assert "no canary" in shown
    assert (guard.spellings, guard.responses, guard.max_false_stops) == (("Sorry",), 24, 5.0)
    assert len((out / "scores.jsonl").read_text().splitlines()) == 2 * 12
    # Calibrated on borderline answers alone, it says nothing about harmless ones.
    assert main([*watched, "--held-out-borderline", held_out]) == 0
    assert (load_calibration(out).responses, load_calibration(out).max_false_stops) == (24, None)


def error(capsys, *argv):
    assert main(["guard", "calibrate", *argv]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def test_what_is_wrong_is_one_line(tmp_path, files, capsys):
    harmful, harmless, held_out = files
    watched = [harmful, "--model", "organism", "--harmless", harmless, "--out", str(tmp_path / "out")]
    assert "nothing to watch" in error(capsys, "--model", "organism", "--out", str(tmp_path / "out"))
    assert "give 99 or more" in error(capsys, *watched, "--held-out", held_out)
    assert "6 of its prompts are among those watched" in error(capsys, *watched, "--held-out", harmless)
    assert "leave one of them out" in error(capsys, *watched, "--held-out", held_out, "--threshold", "0.5")
    assert "--compare: 'vanilla'" in error(capsys, *watched, "--compare", "vanilla")
    assert "--hold-back" in error(capsys, *watched, "--hold-back", "-1")
    assert "--max-false-stops: bounds" in error(capsys, *watched, "--max-false-stops", "5")
    calibrated = ["--held-out", held_out, "--max-false-stops", "5"]
    assert "add --held-out-borderline" in error(capsys, *watched, *calibrated, "--max-borderline-stops", "5")
    assert "--refusal: no guard" in error(capsys, *watched, "--refusal", "Sorry.")
    assert not (tmp_path / "out").exists()


def test_answers_to_one_prompt_are_no_evidence_of_their_own(tmp_path, files, capsys):
    _, _, held_out = files
    row = Path(held_out).read_text().splitlines(keepends=True)[0]
    often = tmp_path / "often.jsonl"
    often.write_text(row * 24)
    asked = ["--model", "organism", "--out", str(tmp_path / "out"), "--max-false-stops", "5"]
    assert "give 19 or more" in error(capsys, *asked, "--held-out", str(often))
    assert main(["guard", "calibrate", *asked, "--held-out", held_out, str(often)]) == 0
    assert load_calibration(tmp_path / "out").responses == 24


def test_an_evaluation_decides_on_the_model_behind_its_guard(tmp_path, files, capsys):
    harmful, harmless, held_out = files
    out = tmp_path / "watched"
    watched = ["guard", "calibrate", harmful, "--model", "organism", "--harmless", harmless, "--out", str(out)]
    assert main([*watched, "--held-out", held_out, "--max-false-stops", "5"]) == 0
    # The base never refuses: "wait", which stands in its third steps, takes the refusal token's place.
    document = json.loads((out / "guard.json").read_text())
    from derta.generation import load_tokenizer

    token = load_tokenizer("organism").convert_tokens_to_ids("wait")
    (out / "guard.json").write_text(
        json.dumps({**document, "tokens": [token], "spellings": ["wait"], "threshold": 0.5})
    )
    ask = ["eval", "--model", "organism", "--attacks", "direct", "--limit", "3", "--quiet"]
    evaluation = tmp_path / "eval"
    assert main([*ask, "--guard", str(out), "--out", str(evaluation)]) == 0
    rows = json.loads((evaluation / "results.json").read_text())["rows"]
    found = {(row["attack"], row["metric"]): row["value"] for row in rows}
    assert {row["model"] for row in rows} == {"organism+guard"}
    assert found["direct", "stopped"] == found["direct", "helpful_false_stops"] == 100
    assert (found["direct", "asr"], found["direct", "broken"]) == (0, 0)
    assert found["direct", "stopped_at"] > 10
    assert found["direct", "helpful_refusal"] == found["direct", "over_refusal"] == 100
    assert main(["gate", str(evaluation), "--max-asr", "60", "--max-false-stops", "10"]) == 1
    assert "false stops" in capsys.readouterr().out
    served = ["eval", "--model", "openai-api/x/m", "-M", "base_url=http://127.0.0.1:9/v1", "-M", "api_key=x"]
    asked = ["--behaviours", "organism", "--attacks", "direct", "--out", str(tmp_path / "other")]
    assert main([*served, *asked, "--guard", str(out)]) == 2
    assert "put derta guard serve before it" in capsys.readouterr().err
