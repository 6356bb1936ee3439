"""Helpfulness tasks from the user's files: GSM8K, MMLU and AlpacaEval, zero-shot as in the paper."""

from collections.abc import Callable, Iterable
from pathlib import Path

from derta.data.behaviours import Behaviour
from derta.errors import InputError, did_you_mean
from derta.evaluation.inputs.columns import read_rows, read_text
from derta.evaluation.judges import Judge, Verdict, classify_compliance
from derta.evaluation.judges.answers import is_correct_letter, is_correct_number

CHECKED: dict[str, Callable[[str, str, str], bool]] = {"gsm8k": is_correct_number, "mmlu": is_correct_letter}
"""Tasks whose answers a rule compares: (response, true answer, question)."""
QUESTION = ("question", "instruction", "prompt")
PREFERRED = "alpacaeval"
"""The task whose answers a model compares with a reference's."""
TASKS = (*CHECKED, PREFERRED)
_TRUTH = {name: ("answer",) for name in CHECKED} | {PREFERRED: ("response", "output")}


def check_task(name: str, known: Iterable[str]) -> None:
    """Stop at a task that there isn't.

    Raises:
        InputError: `name` is not among `known`.
    """
    known = list(known)
    if name not in known:
        raise InputError(f"`task`: unknown task {name!r}{did_you_mean(name, known)}; there are {', '.join(known)}")


def load_questions(task: str, path: Path) -> list[Behaviour]:
    """Return the questions of a file; `response` holds the true answer or the reference's.

    The columns are `question` (or `instruction`) and `answer`; for AlpacaEval the reference's `response` or `output`.

    Raises:
        InputError: the file can't be read, or a row lacks a column.
    """
    return [
        Behaviour(f"{task}:{number}", read_text(row, QUESTION), "helpful", read_text(row, _TRUTH[task]))
        for number, row in enumerate(read_rows(path, f"task {task}"))
    ]


def answer_judge(task: str) -> Judge:
    """Return the judge of a task in `CHECKED`: it compares with the true answer."""
    is_correct = CHECKED[task]

    def judge(behaviour: Behaviour, response: str, prefix: str) -> Verdict:
        if behaviour.response is None:
            raise ValueError(f"{behaviour.id}: the true answer isn't known")
        label = classify_compliance(behaviour.prompt, response)
        return Verdict(label, correct=is_correct(response, behaviour.response, behaviour.prompt))

    return judge
