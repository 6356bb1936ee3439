"""Standard benchmarks through lm-eval, on a model loaded as everything else here loads it.

EleutherAI's Language Model Evaluation Harness, https://github.com/EleutherAI/lm-evaluation-harness (extra `lm-eval`).
Prompts, shots, answer extraction and scores are its own, so that the numbers compare with published ones.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from derta.errors import InputError, did_you_mean, first_line
from derta.evaluation.results.intervals import Z_95, wilson
from derta.evaluation.results.metrics import MetricRow

JUDGE = "lm-eval"
BATCH_SIZE = 16
# Scores from 0 to 100 already.
_NOT_SHARES = ("bleu", "chrf", "ter", "rouge1", "rouge2", "rougeL", "rougeLsum")


def find_tasks(tasks: Sequence[str], include_path: Path | None = None) -> Any:
    """Return lm-eval's task manager, which knows all of `tasks`.

    Args:
        tasks: their names; a group's name stands for its tasks.
        include_path: directory with further tasks (YAML).

    Raises:
        InputError: lm-eval isn't installed, or a task is unknown.
    """
    _, module, _ = _lm_eval()
    if include_path:
        own = module.TaskManager(include_path=str(include_path), include_defaults=False)
        # Reading lm-eval's own thousands of tasks takes a while.
        if all(own.match_tasks([task]) for task in tasks):
            return own
    manager = module.TaskManager(include_path=str(include_path) if include_path else None, include_defaults=True)
    for task in tasks:
        if not manager.match_tasks([task]):
            raise InputError(f"--tasks: lm-eval knows no task {task!r}{did_you_mean(task, manager.all_tasks)}")
    return manager


def run_lm_eval(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    tasks: Sequence[str],
    manager: Any,
    *,
    name: str,
    limit: int | None = None,
    apply_chat_template: bool = False,
) -> tuple[list[MetricRow], dict[str, Any]]:
    """Run tasks on a loaded model; return their rows and how lm-eval ran them (versions and shots).

    A row's `attack` is the task, its `metric` lm-eval's name, with the filter where a task has several:
    `exact_match,strict-match`. Shares are in % with a 95 % interval from lm-eval's standard error.

    Args:
        manager: knows the tasks: see [`find_tasks`].
        name: of the model, written into the rows.
        limit: samples of each task at most.
        apply_chat_template: give the model its prompts as a chat, examples as turns of it.

    Raises:
        InputError: lm-eval isn't installed, or a task can't be loaded.
    """
    lm_eval, _, models = _lm_eval()
    try:
        results = lm_eval.simple_evaluate(
            model=models.HFLM(pretrained=model, tokenizer=tokenizer, backend="causal", batch_size=BATCH_SIZE),
            tasks=list(tasks),
            task_manager=manager,
            limit=limit,
            apply_chat_template=apply_chat_template,
            log_samples=False,
        )
    # Data that can't be had, a broken task file: what a user can mend.
    except (OSError, ValueError, KeyError, yaml.YAMLError) as error:
        why = f"{type(error).__name__}: {first_line(error)}"
        raise InputError(f"--tasks {','.join(tasks)}: lm-eval fails: {why}") from error
    made_with = {
        "lm_eval": lm_eval.__version__,
        "versions": results["versions"],
        "n_shot": results["n-shot"],
        "apply_chat_template": apply_chat_template,
    }
    return list(_rows(results, name)), made_with


def _lm_eval() -> tuple[Any, Any, Any]:
    try:
        return import_module("lm_eval"), import_module("lm_eval.tasks"), import_module("lm_eval.models.huggingface")
    except ImportError as error:
        raise InputError(f"lm-eval can't be loaded ({first_line(error)}): pip install 'derta[lm-eval]'") from error


def _rows(results: Mapping[str, Any], name: str) -> Iterator[MetricRow]:
    for task, metrics in results["results"].items():
        n = _samples(results, task)
        for key, value in metrics.items():
            metric, _, filter_ = key.partition(",")
            if not filter_ or metric.endswith("_stderr") or isinstance(value, str):
                continue
            better = results["higher_is_better"].get(task, {}).get(metric)
            shown = metric if filter_ == "none" else key
            row = MetricRow(name, None, None, None, task, None, shown, None, n, None, None, JUDGE, "score")
            if not math.isfinite(value):
                yield row
                continue
            row = replace(row, value=float(value))
            error = metrics.get(f"{metric}_stderr,{filter_}")
            yield _with_interval(
                row, error if isinstance(error, int | float) else None, _is_share(metric, value, better)
            )


def _samples(results: Mapping[str, Any], task: str) -> int:
    """Count a task's samples, a group's over its tasks."""
    counted = results["n-samples"].get(task)
    if counted is not None:
        return int(counted["effective"])
    return sum(_samples(results, each) for each in results.get("group_subtasks", {}).get(task, ()))


def _is_share(metric: str, value: float, higher_is_better: bool | None) -> bool:
    return higher_is_better is not False and metric.split("_")[0] not in _NOT_SHARES and 0 <= value <= 1


def _with_interval(row: MetricRow, error: float | None, is_share: bool) -> MetricRow:
    value = row.value or 0.0
    interval: tuple[float, float] | None = None
    if is_share and row.n and not error:
        # Nothing varied, and so lm-eval's error is 0: that isn't certainty.
        interval = wilson(value * row.n, row.n)
    elif error is not None:
        interval = value - Z_95 * error, value + Z_95 * error
    if not is_share:
        return row if interval is None else replace(row, ci_low=interval[0], ci_high=interval[1])
    row = replace(row, value=100 * value, unit="%")
    if interval is None:
        return row
    return replace(row, ci_low=100 * max(interval[0], 0.0), ci_high=100 * min(interval[1], 1.0))
