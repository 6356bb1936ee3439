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


class TrainingDisplay(TrainerCallback):
    """Shows step, loss by term, p(refuse) at harmful and at harmless positions, tokens per second and time left.

    Args:
        title: What runs, in a line.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self.logs: dict[str, float] = {}
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
        self._pace = Pace(state.max_steps - state.global_step)
        self._bars.reset(self._task, total=state.max_steps, completed=state.global_step)

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **others: Any) -> None:
        """Move on by a step; where there is no terminal, print a line now and then."""
        self._bars.update(self._task, completed=state.global_step)
        if self._pace.advance(1) and not self._on_terminal:
            place = f"step {state.global_step:,} of {state.max_steps:,}"
            screen.say(", ".join(filter(None, (place, *self._values(), self._pace.left))), errors=True)

    def on_log(self, args: Any, state: TrainerState, control: TrainerControl, logs: Any = None, **others: Any) -> None:
        """Take note of the newest values."""
        self.logs |= {name: value for name, value in (logs or {}).items() if isinstance(value, int | float)}

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
        return Group(self._bars.get_renderable(), table)
