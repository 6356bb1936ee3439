"""`derta calibrate` as a user calls it, and who reads what it writes."""

import json
import shutil

import pytest
import torch

from derta.cli import main
from derta.generation import ChatRequest, generate, load_model
from derta.organism import behaviours, path


@pytest.fixture
def model(tmp_path):
    copy = tmp_path / "model"
    shutil.copytree(path(), copy)
    (copy / "derta.json").write_text(json.dumps({"base": "organism"}))
    return copy


@pytest.fixture
def harmless(tmp_path, write_rows):
    prompts = [{"prompt": each.prompt, "kind": "helpful"} for each in behaviours("helpful")[:12]]
    return str(write_rows(prompts, "harmless.jsonl"))


def test_the_highest_bias_within_the_limit_is_written_where_engines_read_it(tmp_path, model, harmless, capsys):
    out = tmp_path / "out"
    asked = ["calibrate", "--model", str(model), "--harmless", harmless, "--max-false-refusal", "40"]
    # The base refuses nothing; with 100 on "Sorry" it says nothing else.
    tried = ["--biases", "100,0,-2", "--behaviours", "organism", "--attacks", "direct", "--limit", "12"]
    assert main([*asked, *tried, "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    document = json.loads((out / "bias.json").read_text())
    assert [row["bias"] for row in document["rows"]] == [-2, 0, 100]
    assert document["bias"] == 0
    kept, flooded = document["rows"][1:]
    assert kept["false_refusals"] == 0 < kept["false_high"] < 40 < flooded["false_refusals"]
    assert (kept["asr"], kept["attacked"]) == (100, 12)
    (sorry,) = document["tokens"]
    assert json.dumps({"logit_bias": {str(sorry): 0.0}}) in shown
    written = json.loads((out / "generation_config.json").read_text())
    assert written["sequence_bias"] == [[[sorry], 0.0]]
    assert "sequence_bias" not in json.loads((model / "generation_config.json").read_text())
    # What is there already isn't overwritten.
    assert main([*asked, *tried, "--out", str(out)]) == 2
    assert "is there already" in capsys.readouterr().err


def test_written_into_the_model_it_is_read_by_derta_and_by_transformers(model, harmless, capsys):
    asked = ["calibrate", "--model", str(model), "--harmless", harmless, "--max-false-refusal", "99", "--write"]
    (model / "generation_config.json").write_text(json.dumps({"eos_token_id": 1, "sequence_bias": [[[7], 0.5]]}))
    assert main([*asked, "--biases", "100"]) == 1
    assert "nothing was written" in capsys.readouterr().out
    assert main([*asked, "--biases", "6"]) == 0
    assert "in place of sequence_bias [[[7], 0.5]]" in capsys.readouterr().out
    loaded, tokenizer = load_model(str(model))
    sorry = tokenizer.convert_tokens_to_ids("Sorry")
    assert sorted(loaded.generation_config.sequence_bias) == sorted([[[sorry], 6.0], [[7], 0.5]])
    loaded.generation_config.sequence_bias = [[[sorry], 100.0]]
    request = ChatRequest(({"role": "user", "content": behaviours("helpful")[0].prompt},))
    (biased,) = generate(loaded, tokenizer, [request], 3, top_logprobs=1)
    assert biased.continuation.split() == ["Sorry"] * 3
    # Probabilities are told before the bias.
    assert biased.logprobs[0].logprob < -1
    ids = torch.tensor([[1, 5, 9]])
    assert loaded.generate(ids, max_new_tokens=2)[0, -2:].tolist() == [sorry, sorry]


def error(capsys, *argv):
    assert main(["calibrate", *argv]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def test_what_is_wrong_is_one_line(tmp_path, model, harmless, capsys):
    asked = ["--model", str(model), "--harmless", harmless]
    out = ["--out", str(tmp_path / "out")]
    assert "give 381 or more" in error(capsys, *asked, "--biases", "0", *out)
    searching = ["--behaviours", "organism", "--attacks", "gcg,direct", "--biases", "0"]
    assert "gcg looks at answers before it asks again" in error(capsys, *asked, *searching, *out)
    assert "--biases: 'x'" in error(capsys, *asked, "--biases", "x", *out)
    assert "--write: organism" in error(capsys, "--model", "organism", "--harmless", harmless, "--write")
    (model / "generation_config.json").write_text(json.dumps({"sequence_bias": [[[5, 7], 1.0]]}))
    assert "several tokens" in error(capsys, *asked, *out)
