"""What a training run shows: one calm screen while it works, and a few plain lines where there is no terminal."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from transformers import TrainerCallback, TrainerControl, TrainerState

from derta.terminal import Pace, clock, progress_bars, screen

_TERMS = {"loss_helpful": "helpful", "loss_safe": "safe", "loss_rto": "RTO"}
_REFUSALS = {"refusal_at_rto": "at harmful positions", "refusal_at_helpful": "at harmless positions"}
_ASR = "asr_"


class TrainingDisplay(TrainerCallback):
    """Shows step, loss by term, p(refuse) at harmful and at harmless positions, tokens per second and time left.

    Args:
        title: What runs, in a line.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self.logs: dict[str, float] = {}
        self.attacks: dict[str, float] = {}
        self._begins_at = 0
        self._is_due = False
        self._bars = progress_bars(auto_refresh=False)
        self._task = self._bars.add_task("step", total=None)
        self._pace = Pace(None)
        self._on_terminal = False

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Keep the picture on the terminal while the run goes on."""
        screen.say(self.title, style="bold")
        with screen.live(self._picture) as self._on_terminal:
            yield

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **others: Any) -> None:
        """Start the clock at the step that the run goes on from."""
        self._begins_at = state.global_step
        self._pace = Pace(state.max_steps - state.global_step)
        self._bars.reset(self._task, total=state.max_steps, completed=state.global_step)

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **others: Any) -> None:
        """Move on by a step; where there is no terminal, print the first one and a line now and then."""
        self._bars.update(self._task, completed=state.global_step)
        is_first = state.global_step == self._begins_at + 1
        self._is_due = self._pace.advance(1) or is_first or self._is_due
        # The values of a step that is logged come with `on_log`, after this.
        if self._is_due and not control.should_log:
            self._print(state)

    def on_log(self, args: Any, state: TrainerState, control: TrainerControl, logs: Any = None, **others: Any) -> None:
        """Take note of the newest values, each log's in place of the one before."""
        values = {name: value for name, value in (logs or {}).items() if isinstance(value, int | float)}
        if "loss" in values:
            self.logs = values
            if self._is_due:
                self._print(state, *self._values())
        elif any(name.startswith(_ASR) for name in values):
            self.attacks = values
            if not self._on_terminal:
                screen.say(f"step {state.global_step:,}: {self._attack_line()}", errors=True)

    def _print(self, state: TrainerState, *values: str) -> None:
        self._is_due = False
        if not self._on_terminal:
            place = f"step {state.global_step:,} of {state.max_steps:,}"
            screen.say(", ".join(filter(None, (place, *values, self._pace.left))), errors=True)

    def _attack_line(self) -> str:
        asr = [f"{name.removeprefix(_ASR)} {value:.0f} %" for name, value in self.attacks.items() if _ASR in name]
        told = f"attack success {', '.join(asr)}"
        if "over_refusal" in self.attacks:
            told += f"; over-refusal {self.attacks['over_refusal']:.0f} %"
        return told

    def summary(self) -> str:
        """Return the last values and the time of the run, in a line."""
        return ", ".join((*self._values(), clock(self._pace.seconds)))

    def _values(self) -> list[str]:
        logs, values = self.logs, []
        if "loss" in logs:
            terms = [f"{name} {logs[key]:.3f}" for key, name in _TERMS.items() if key in logs]
            values.append(f"loss {logs['loss']:.3f}" + (f" ({', '.join(terms)})" if terms else ""))
        refusals = [f"{logs[key]:.3f} {where}" for key, where in _REFUSALS.items() if key in logs]
        if refusals:
            values.append(f"p(refuse) {', '.join(refusals)}")
        if "tokens_per_second" in logs:
            values.append(f"{logs['tokens_per_second']:,.0f} tokens/s")
        return values

    def _picture(self) -> RenderableType:
        table = Table.grid(padding=(0, 2))
        for value in self._values():
            name, _, rest = value.partition(" ")
            table.add_row(Text(name, style="dim"), Text(rest)) if name in ("loss", "p(refuse)") else table.add_row(
                Text("speed", style="dim"), Text(value)
            )
        if self.attacks:
            table.add_row(Text("attacks", style="dim"), Text(self._attack_line()))
        return Group(self._bars.get_renderable(), table)
