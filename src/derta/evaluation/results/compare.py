"""Two evaluations side by side, with paired differences over what they share and a list of what they don't."""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from derta.data.behaviours import plain_prompt
from derta.errors import InputError
from derta.evaluation.results.paired import Difference, paired, same_attempt
from derta.evaluation.results.store import Evaluation

# What names an evaluation or its model rather than how it was made.
_NOT_SETTINGS = (
    *("model", "digest", "method", "training_seed", "fingerprint", "files", "served_as"),
    *("schema", "depths_counted_in", "rendered_here"),
)
_NAMED = 5
"""How many of the things that aren't shared are called by name."""


@dataclass(frozen=True)
class Comparison:
    """Two evaluations and what changes from the first to the second.

    Attributes:
        first: one evaluation.
        second: the other.
        differences: judge → the second less the first, over shared attempts. Only of judges that both have.
        notes: what they don't share, a line each.
    """

    first: Evaluation
    second: Evaluation
    differences: dict[str, list[Difference]]
    notes: list[str]


def restrict(evaluation: Evaluation, prompts: Collection[str]) -> Evaluation:
    """Return an evaluation of some behaviours alone, counted again; shares aren't corrected for a judge's error.

    Args:
        evaluation: Holds them, and others.
        prompts: Are the behaviours', as [`plain_prompt`] gives them: what an id means is each file's own affair.

    Raises:
        InputError: It has none of them.
    """
    samples = [sample for sample in evaluation.samples if plain_prompt(sample.prompt) in prompts]
    if not samples:
        raise InputError(f"`behaviours`: {evaluation.directory} has none of these prompts")
    return replace(evaluation, samples=samples, qualities=())


def compare(first: Evaluation, second: Evaluation) -> Comparison:
    """Compare two evaluations. Verdicts of different judges are never subtracted from each other."""
    judges = [judge for judge in first.judges if judge in second.judges]
    differences = {judge: paired(first.by(judge), second.by(judge)) for judge in judges}
    return Comparison(first, second, differences, [*_judge_notes(first, second), *_notes(first, second)])


def _judge_notes(first: Evaluation, second: Evaluation) -> list[str]:
    ours, theirs = first.judges, second.judges
    if set(ours) == set(theirs):
        return []
    if set(ours) & set(theirs):
        return [f"judges differ: {_list(ours)} and {_list(theirs)}; differences by those that both have"]
    return [f"judges differ: {_list(ours)} and {_list(theirs)}; their verdicts aren't subtracted from each other"]


def _notes(first: Evaluation, second: Evaluation) -> list[str]:
    notes = []
    keys = [{sample.key: sample for sample in each.samples} for each in (first, second)]
    for own, other, evaluation in ((keys[0], keys[1], first), (keys[1], keys[0], second)):
        attacks, others = ({sample.variant: None for sample in side.values()} for side in (own, other))
        if only := [attack for attack in attacks if attack not in others]:
            notes.append(f"only in {evaluation.directory}: attacks {_list(only)}")
        shared_attacks = [key for key, sample in own.items() if sample.variant in others]
        if missing := list(dict.fromkeys(own[key].id for key in shared_attacks if key not in other)):
            notes.append(f"only in {evaluation.directory}: behaviours {_list(missing)}")
    shared = [key for key in keys[0] if key in keys[1]]
    if changed := list(dict.fromkeys(keys[0][k].id for k in shared if not same_attempt(keys[0][k], keys[1][k]))):
        notes.append(f"other prompts under the same id, not compared: {_list(changed)}")
    if not shared:
        notes.append("no behaviour is in both: there is nothing to subtract")
    if otherwise := [name for name in first.tasks if _is_asked_otherwise(name, first, second)]:
        means = "other templates, demonstrations, neighbours, or depths in tokens of another tokenizer"
        notes.append(f"the same behaviours asked otherwise ({means}): {_list(otherwise)}")
    for name in dict.fromkeys([*first.settings, *second.settings]):
        ours, theirs = first.settings.get(name), second.settings.get(name)
        if name not in _NOT_SETTINGS and ours != theirs:
            notes.append(f"{name} differs: {_short(ours)} and {_short(theirs)}")
    if first.model.digest and first.model.digest == second.model.digest:
        notes.append("both are of the same weights")
    return notes


def _is_asked_otherwise(task: str, first: Evaluation, second: Evaluation) -> bool:
    """Whether both hold the same samples of a task, and the requests weren't the same."""
    if first.is_of_file or second.is_of_file:  # of a file: nobody knows how it was asked
        return False
    if task not in second.tasks or first.tasks[task].digest == second.tasks[task].digest:
        return False
    ours, theirs = ({(*each.key, each.prompt) for each in side.of(task)} for side in (first, second))
    return ours == theirs


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:59] + "…"
