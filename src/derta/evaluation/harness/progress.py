"""How far an evaluation is: Inspect tells when samples end, and the screen shows a bar for each task."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from inspect_ai.hooks import Hooks, SampleEnd, TaskEnd, TaskStart, hooks
from inspect_ai.log import list_eval_logs, read_eval_log, read_eval_log_sample_summaries

from derta.terminal import Advance, screen

_bars: dict[str, Advance] = {}
"""The bars on the screen by their tasks: Inspect has one instance of each hook for the whole process."""


@hooks(name="derta_progress", description="Shows how many samples of each task are done.")
class ProgressHooks(Hooks):
    """Moves the bar of a task when one of its samples ends."""

    def __init__(self) -> None:
        self._task_of: dict[str, str] = {}

    def enabled(self) -> bool:
        """Stay out of evaluations that aren't derta's."""
        return bool(_bars)

    async def on_task_start(self, data: TaskStart) -> None:
        """Take note of a task's id."""
        self._task_of[data.eval_id] = data.spec.task

    async def on_task_end(self, data: TaskEnd) -> None:
        """Forget it."""
        self._task_of.pop(data.eval_id, None)

    async def on_sample_end(self, data: SampleEnd) -> None:
        """Count a sample."""
        advance = _bars.get(self._task_of.get(data.eval_id, ""))
        if advance is not None:
            advance(1)


@contextmanager
def showing_progress(totals: Mapping[str, int], logs: Path) -> Iterator[None]:
    """Show a bar for each task while Inspect runs.

    Args:
        totals: Counts the samples of each task.
        logs: Holds the logs of an evaluation that was stopped: what they have is done already.
    """
    done = _done(logs)
    with ExitStack() as stack:
        for task, total in totals.items():
            _bars[task] = stack.enter_context(screen.bar(task, total))
            _bars[task](min(done.get(task, 0), total))
        try:
            yield
        finally:
            _bars.clear()


def _done(logs: Path) -> dict[str, int]:
    """Count the finished samples of each task in the logs of an earlier run."""
    done: dict[str, int] = {}
    for log in list_eval_logs(str(logs)) if logs.is_dir() else ():
        task = read_eval_log(log, header_only=True).eval.task
        finished = sum(summary.completed for summary in read_eval_log_sample_summaries(log))
        done[task] = max(done.get(task, 0), finished)
    return done
