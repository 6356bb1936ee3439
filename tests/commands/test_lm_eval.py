"""lm-eval on a tiny model and a local task: no network, the numbers of its own, and errors in one line."""

import importlib
import json
import math

import pytest

from derta.cli import main
from derta.errors import InputError
from derta.evaluation import lm_eval
from tests.inference.tiny import make_model, make_tokenizer

pytest.importorskip("lm_eval")

TASK = """task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{answer}}}}"
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
"""


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """Two tasks over the same questions, with the answers the other way round."""
    folder = tmp_path_factory.mktemp("tasks")
    for name, shift in (("derta_vault", 0), ("derta_vault_turned", 1)):
        rows = [
            {"question": f"How to open vault {i}?", "choices": [" key", " dig"], "answer": (i + shift) % 2}
            for i in range(6)
        ]
        data = folder / f"{name}.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
        (folder / f"{name}.yaml").write_text(TASK.format(name=name, data=data))
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(folder)
    make_model(len(tokenizer)).save_pretrained(folder)
    return folder


@pytest.fixture
def own_tasks_only(monkeypatch):
    """Leave lm-eval's thousands of tasks unread."""
    module = importlib.import_module("lm_eval.tasks")
    manager = module.TaskManager

    def small(**options):
        return manager(**{**options, "include_defaults": False})

    monkeypatch.setattr(module, "TaskManager", small)


def test_tasks_become_rows_in_percent_with_intervals(model, tasks, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "out"
    names = "derta_vault, derta_vault_turned"
    command = ["lm-eval", "--model", str(model), "--tasks", names, "--include-path", str(tasks), "--out", str(out)]
    assert main(command) == 0
    written = json.loads((out / "results.json").read_text())
    rows = {row["attack"]: row for row in written["rows"]}
    assert list(rows) == ["derta_vault", "derta_vault_turned"]
    # The second task's answers are the first's, turned: what is right here is wrong there.
    assert rows["derta_vault"]["value"] + rows["derta_vault_turned"]["value"] == pytest.approx(100)
    for row in rows.values():
        assert (row["metric"], row["n"], row["judge"], row["unit"]) == ("acc", 6, "lm-eval", "%")
        assert 0 <= row["ci_low"] <= row["value"] <= row["ci_high"] <= 100
        assert row["ci_low"] < row["ci_high"]
    assert written["n_shot"] == {"derta_vault": 0, "derta_vault_turned": 0}
    assert "derta_vault_turned" in capsys.readouterr().out
    # The directory belongs to this run.
    assert main([*command, "--limit", "2"]) == 2
    assert "another limit" in capsys.readouterr().err


@pytest.mark.parametrize(("options", "begins"), [([], "How to open"), (["--apply-chat-template"], "<s><user> How to")])
def test_the_model_gets_its_prompts_as_a_chat_where_it_is_asked_for(
    model, tasks, tmp_path, monkeypatch, options, begins
):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    harness = importlib.import_module("lm_eval.models.huggingface").HFLM
    prompts: list[str] = []
    loglikelihood = harness.loglikelihood

    def watched(self, requests, **how):
        prompts.extend(request.args[0] for request in requests)
        return loglikelihood(self, requests, **how)

    monkeypatch.setattr(harness, "loglikelihood", watched)
    out = tmp_path / "out"
    command = ["lm-eval", "--model", str(model), "--tasks", "derta_vault", "--include-path", str(tasks)]
    assert main([*command, "--out", str(out), *options]) == 0
    assert prompts
    assert all(prompt.startswith(begins) for prompt in prompts)
    assert json.loads((out / "results.json").read_text())["apply_chat_template"] is bool(options)


@pytest.mark.usefixtures("own_tasks_only")
def test_a_chat_without_a_template_is_refused(tasks, tmp_path, capsys):
    tokenizer = make_tokenizer(template=None)
    for part in (tokenizer, make_model(len(tokenizer))):
        part.save_pretrained(tmp_path / "model")
    command = ["lm-eval", "--model", str(tmp_path / "model"), "--tasks", "derta_vault", "--include-path", str(tasks)]
    assert main([*command, "--apply-chat-template", "--out", str(tmp_path / "out")]) == 2
    assert "has no chat template" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("own_tasks_only")
def test_an_unknown_task_is_one_line_with_a_suggestion(model, tasks, tmp_path, capsys):
    command = ["lm-eval", "--model", str(model), "--tasks", "derta_valt", "--include-path", str(tasks)]
    assert main([*command, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "lm-eval knows no task 'derta_valt' (did you mean 'derta_vault'?)" in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tasks", " , "], "--tasks: name at least one"),
        (["--tasks", "a", "--limit", "0"], "--limit"),
        (["--tasks", "a", "--include-path", "/no/such/place"], "--include-path"),
    ],
)
def test_wrong_options_are_bad_input(tmp_path, capsys, options, message):
    assert main(["lm-eval", "--model", "organism", *options, "--out", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err


def test_a_missing_extra_names_the_command(monkeypatch, tmp_path, capsys):
    def missing(name):
        raise ImportError("No module named 'lm_eval'")

    monkeypatch.setattr(lm_eval, "import_module", missing)
    assert main(["lm-eval", "--model", "organism", "--tasks", "a", "--out", str(tmp_path)]) == 2
    assert "pip install 'derta[lm-eval]'" in capsys.readouterr().err


def results(metrics, n=10, higher_is_better=True):
    return {
        "results": {"t": {"alias": "t", **metrics}},
        "n-samples": {"t": {"original": n, "effective": n}},
        "higher_is_better": {"t": {key.partition(",")[0]: higher_is_better for key in metrics}},
    }


@pytest.mark.parametrize(
    ("metrics", "better", "expected"),
    [
        ({"acc,none": 0.5, "acc_stderr,none": 0.1}, True, ("acc", 50.0, 30.4, 69.6, "%")),
        # lm-eval's error is 0 where nothing varies: Wilson's upper end is not.
        ({"acc,none": 0.0, "acc_stderr,none": 0.0}, True, ("acc", 0.0, 0.0, 27.8, "%")),
        ({"exact_match,strict-match": 0.2}, True, ("exact_match,strict-match", 20.0, 5.7, 51.0, "%")),
        ({"perplexity,none": 0.9, "perplexity_stderr,none": 0.1}, False, ("perplexity", 0.9, 0.7, 1.1, "score")),
        ({"bleu,none": 0.4, "bleu_stderr,none": "N/A"}, True, ("bleu", 0.4, None, None, "score")),
        ({"bleu_max,none": 0.7, "bleu_max_stderr,none": "N/A"}, True, ("bleu_max", 0.7, None, None, "score")),
        ({"acc,none": math.nan, "acc_stderr,none": 0.1}, True, ("acc", None, None, None, "score")),
    ],
)
def test_what_is_a_share_is_given_in_percent(metrics, better, expected):
    (row,) = lm_eval._rows(results(metrics, higher_is_better=better), "m")
    found = [None if end is None else round(end, 1) for end in (row.value, row.ci_low, row.ci_high)]
    assert (row.metric, *found, row.unit) == expected


def test_a_groups_samples_are_counted_over_its_tasks():
    found = results({"acc,none": 0.5, "acc_stderr,none": 0.1})
    found["results"]["g"] = {"acc,none": 0.5, "acc_stderr,none": 0.05}
    found["group_subtasks"] = {"g": ["t", "h"], "h": ["u"]}
    found["n-samples"]["u"] = {"original": 90, "effective": 30}
    assert [(row.attack, row.n) for row in lm_eval._rows(found, "m")] == [("t", 10), ("g", 40)]


def test_a_broken_task_file_is_one_line(tmp_path):
    (tmp_path / "broken.yaml").write_text(TASK.format(name="derta_broken", data=tmp_path / "no.jsonl"))
    tokenizer = make_tokenizer()
    model = make_model(len(tokenizer))
    manager = lm_eval.find_tasks(["derta_broken"], tmp_path)
    with pytest.raises(InputError, match="derta_broken: lm-eval fails"):
        lm_eval.run_lm_eval(model, tokenizer, ["derta_broken"], manager, name="m")
