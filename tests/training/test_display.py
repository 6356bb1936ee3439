"""What a training run prints where there is no terminal: each line tells the values of its own step."""

from typing import Any

import pytest
from transformers import TrainerControl, TrainerState

from derta.training.display import TrainingDisplay


def steps(display: TrainingDisplay, logs: dict[int, dict[str, float]], last: int) -> None:
    """Call what a trainer calls, in its order: a step's log comes after its end."""
    state, control = TrainerState(max_steps=last), TrainerControl()
    args: Any = None
    display.on_train_begin(args, state, control)
    for step in range(1, last + 1):
        state.global_step, control.should_log = step, step in logs
        display.on_step_end(args, state, control)
        if step in logs:
            display.on_log(args, state, control, logs[step])


def test_the_first_step_is_told_before_anything_is_logged(capsys: pytest.CaptureFixture[str]) -> None:
    steps(TrainingDisplay("training"), {}, 3)
    assert capsys.readouterr().err.startswith("step 1 of 3, ")


def test_a_line_has_the_values_of_its_own_step_alone(capsys: pytest.CaptureFixture[str]) -> None:
    display = TrainingDisplay("training")
    steps(display, {1: {"loss": 3.0, "loss_safe": 3.0}, 2: {"loss": 2.0, "loss_helpful": 2.0}}, 2)
    assert capsys.readouterr().err.startswith("step 1 of 2, loss 3.000 (safe 3.000), ")
    assert display.summary().startswith("loss 2.000 (helpful 2.000), ")


def test_attack_success_is_told_when_it_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    display = TrainingDisplay("training")
    steps(display, {2: {"asr_direct": 25.0, "asr_prefill": 40.0, "over_refusal": 5.0, "unscored_direct": 0.0}}, 2)
    told = capsys.readouterr().err.splitlines()
    assert told[-1] == "step 2: attack success direct 25 %, prefill 40 %; over-refusal 5 %"
    assert display.logs == {}
