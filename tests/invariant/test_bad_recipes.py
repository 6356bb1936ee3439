"""Recipes that no run could keep: one line with the field and the mend, before anything is read."""

from pathlib import Path

import pytest

from derta.cli import main

RECIPE = "model_name_or_path: organism\n\nuse_cpu: true\n\ntrain_data: [organism]\n"
NO_NUMBER = (".nan", ".inf", "-.inf")
OUT_OF_RANGE = {
    "learning_rate": (*NO_NUMBER, "-0.001", "0", "1e9999"),
    "num_train_epochs": (*NO_NUMBER, "0", "-1"),
    "per_device_train_batch_size": ("0", "-4"),
    "gradient_accumulation_steps": ("0",),
    "seed": ("-1", "4294967296"),
    "data_seed": ("-1",),
    "max_length": ("0", "-7"),
    "row_length": ("-1",),
    "cuts_per_triple": ("0",),
    "rto_weight": (*NO_NUMBER, "-1"),
    "rto_dropout": (*NO_NUMBER, "1", "-0.1"),
    "dataset_num_proc": ("0",),
    "max_examples": ("0",),
    "attack_steps": ("0",),
    "attack_limit": ("-1",),
}
OTHERWISE_WRONG = {
    "no steps between logs": ("logging_steps: 0", "non-zero --logging_steps"),
    "an adapter of no rank": ("use_peft: true\nlora_r: 0", "use_peft: "),
    "a place to report to that isn't installed": ("report_to: wandb", "report_to: wandb isn't installed"),
    "an unknown place to report to": ("report_to: tensorbord", "report_to: no 'tensorbord' (did you mean 'tensor"),
    "a schedule without what it needs": ("lr_scheduler_type: cosine_with_min_lr", "lr_scheduler_kwargs: cosine_with"),
    "a schedule with what it doesn't take": ("lr_scheduler_kwargs: {a: 1}", "lr_scheduler_kwargs: linear doesn't take"),
    "data to evaluate on, and no time": ("eval_data: a.jsonl", "eval_data: nothing says when to evaluate"),
    "workers that persist and aren't there": ("dataloader_persistent_workers: true", "there are no workers"),
    "incomplete batches alone": ("dataloader_drop_last: true\nper_device_train_batch_size: 9000", "no whole batch"),
    "modules that aren't there": ("use_peft: true\nlora_target_modules: nosuch", "use_peft: "),
    "text for a mapping": ("model_init_kwargs: float32", "model_init_kwargs: 'float32' is no mapping"),
    "a list for a mapping": ("chat_template_kwargs: [1]", "chat_template_kwargs: '1' is no mapping"),
    "a list for a number": ("learning_rate: [1, 2]", "'2' is one value too many"),
    "a file that isn't there": ("accelerator_config: nowhere.json", "nowhere.json"),
    "a checkpoint to go on from": ("resume_from_checkpoint: there", "resume_from_checkpoint: a run goes on"),
    "a key that stands twice": ("seed: 1\nseed: 2", "recipe.yaml:7: the key 'seed' stands twice"),
    "a key that stands twice inside": ("model_init_kwargs: {a: 1, a: 2}", "recipe.yaml:6: the key 'a' stands twice"),
    "a control character": ("run_name: a\x07b", r"recipe.yaml:6: not YAML: the control character '\x07'"),
    "an escaped control character": (r'run_name: "a\x1b[2Jb"', r"recipe.yaml:6: the control character '\x1b'"),
    "an escaped zero": (r'output_dir: "a\0b"', r"recipe.yaml:6: the control character '\x00'"),
    "brackets without end": (f"eval_data: {'[' * 3000}", "recipe.yaml: not a recipe: nested too deeply"),
    "deep brackets": (f"eval_data: {'[' * 30}{']' * 30}", "recipe.yaml:6: not a recipe: nested too deeply"),
    "a list of itself": ("eval_data: &a [*a]", "recipe.yaml:6: not a recipe: nested too deeply"),
    "aliases that grow": (
        "eval_data:\n- &a [1,1,1,1,1,1,1,1,1]\n"
        + "".join(f"- &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefg", "bcdefgh", strict=True)),
        "not a recipe: nested too deeply",
    ),
    "an object of Python": ("seed: !!python/object/apply:os.getpid []", "recipe.yaml:6: not YAML: could not determine"),
    "a day that doesn't exist": ("run_name: 2020-13-45", "recipe.yaml: not YAML: month must be in 1..12"),
}


def refused(text: str, capsys: pytest.CaptureFixture[str]) -> str:
    Path("recipe.yaml").write_text(RECIPE + text + "\n")
    assert main(["train", "--config", "recipe.yaml", "--dry-run"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("derta: error: ")
    assert told.count("\n") == 1
    assert told.strip().isprintable()
    return told


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field, values in OUT_OF_RANGE.items() for value in values]
)
def test_a_number_out_of_range(field: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    told = refused(f"{field}: {value}", capsys)
    assert told.startswith(f"derta: error: {field}: ")
    assert " is not " in told


@pytest.mark.parametrize("what", OTHERWISE_WRONG)
def test_what_is_wrong_otherwise(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    text, message = OTHERWISE_WRONG[what]
    assert message in refused(text, capsys)


def test_a_value_may_begin_with_a_dash(capsys: pytest.CaptureFixture[str]) -> None:
    assert "unknown option" not in refused("run_name: -x\nseed: -1", capsys)
