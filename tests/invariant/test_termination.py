"""SIGTERM saves and ends; a run that took all its steps takes no more; what can't be sent to the hub is saved."""

import json
import os
import signal
from pathlib import Path

import pytest
from safetensors.torch import load_file
from transformers import TrainerCallback

from derta.cli import main
from derta.training import run as training_run
from derta.training.trainer import DeRTaTrainer

TRAIN = ["train", "--model-name-or-path", "organism", "--train-data", "organism", "--output-dir", "out"]
TRAIN += ["--max-examples", "8", "--per-device-train-batch-size", "2", "--use-cpu", "true", "--max-steps", "5"]
TRAIN += ["--save-steps", "100", "--lr-scheduler-type", "constant"]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


class Terminate(TrainerCallback):
    """Sends SIGTERM at the beginning of the third step."""

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == 2:
            os.kill(os.getpid(), signal.SIGTERM)


def test_sigterm_saves_and_the_same_command_goes_on(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(TRAIN) == 0
    whole = load_file("out/model.safetensors")
    assert main([*TRAIN, "--overwrite"]) == 0
    with monkeypatch.context() as patch:
        patch.setattr(training_run, "TrainingDisplay", lambda title: with_display(title))
        assert main([*TRAIN, "--overwrite"]) == 143
    assert (
        "derta: terminated; the same command goes on from the newest checkpoint, if there is one"
        in capfd.readouterr().err
    )
    assert [path.name for path in Path("out").glob("checkpoint-*")] == ["checkpoint-3"]
    assert main(TRAIN) == 0
    again = load_file("out/model.safetensors")
    assert all((again[name] == whole[name]).all() for name in whole)
    # It took all its steps: resumed, it takes none.
    identity = Path("out/derta.json")
    identity.write_text(json.dumps({**json.loads(identity.read_text()), "finished": False}))
    assert main(TRAIN) == 0
    assert json.loads(Path("out/trainer_state.json").read_text())["global_step"] == 5
    again = load_file("out/model.safetensors")
    assert all((again[name] == whole[name]).all() for name in whole)


def with_display(title):
    from derta.training.display import TrainingDisplay

    class Terminating(TrainingDisplay, Terminate):
        pass

    return Terminating(title)


def test_what_cannot_be_sent_to_the_hub_is_saved(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(*given, **more):
        raise ConnectionError("no route to the hub")

    monkeypatch.setattr(DeRTaTrainer, "init_hf_repo", lambda *given, **more: None)
    monkeypatch.setattr(DeRTaTrainer, "push_to_hub", fail)
    monkeypatch.setattr(DeRTaTrainer, "_push_from_checkpoint", lambda *given: None)
    assert main([*TRAIN, "--max-steps", "1", "--push-to-hub", "true"]) == 2
    told = [line for line in capfd.readouterr().err.splitlines() if line.startswith("derta: error")]
    assert told == [
        "derta: error: push_to_hub: the model is saved in out, and couldn't be sent to the hub: no route to the hub; "
        "send it with hf upload"
    ]
    assert json.loads(Path("out/derta.json").read_text())["finished"]
    assert Path("out/model.safetensors").exists()


@pytest.mark.parametrize("sigint", [signal.SIG_IGN, signal.default_int_handler], ids=["ignored", "heard"])
def test_sigterm_ends_a_command_that_a_shell_started_in_the_background(sigint, monkeypatch, capfd) -> None:
    """Such shells ignore SIGINT, and what they start does."""
    from derta.evaluation import run as evaluation

    def terminated(*args, **kwargs):
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("SIGTERM did nothing")

    monkeypatch.setattr(evaluation, "eval_set", terminated)
    before = signal.signal(signal.SIGINT, sigint)
    try:
        asked = ("--behaviours", "organism", "--attacks", "direct", "--limit", "1")
        assert main(["eval", "--model", "organism", *asked, "--out", "evaluation"]) == 143
    finally:
        signal.signal(signal.SIGINT, before)
    assert "derta: terminated" in capfd.readouterr().err
