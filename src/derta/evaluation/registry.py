"""What derta adds to Inspect: the provider `derta/PATH` and the tasks `derta/attack` and `derta/harmless`.

    inspect eval derta/attack -T name=prefill --model derta/organism

`derta eval` runs the same tasks, all attacks at once, and counts with intervals.
"""

from inspect_ai import Task, task
from inspect_ai.model import get_model

from derta.evaluation.attacks import attack_names
from derta.evaluation.config import JudgeName, Options
from derta.evaluation.harness.provider import DertaAPI, derta
from derta.evaluation.plan import make_plan
from derta.evaluation.run import make_tasks
from derta.organism.descent import is_organism

__all__ = ["attack", "derta", "harmless"]


@task
def attack(
    name: str = "direct",
    behaviours: str | None = None,
    judge: str | None = None,
    limit: int | None = None,
    templates: str | None = None,
    demonstrations: str | None = None,
) -> Task:
    """One attack on harmful behaviours; the options are `derta eval`'s."""
    (name,) = attack_names(name)
    options = Options(
        (name,),
        behaviours,
        judges=_judges(judge),
        limit=limit,
        templates=templates,
        demonstrations=demonstrations,
    )
    return _task(options, name)


@task
def harmless(
    kind: str = "borderline", behaviours: str | None = None, judge: str | None = None, limit: int | None = None
) -> Task:
    """Prompts of one harmless kind, `borderline` or `helpful`, asked plainly."""
    return _task(Options(behaviours=behaviours, judges=_judges(judge), limit=limit), kind)


def _judges(judge: str | None) -> tuple[JudgeName, ...]:
    return (JudgeName.parse(judge),) if judge else ()


def _task(options: Options, name: str) -> Task:
    model = get_model()
    tokenizer = model.api.weights.tokenizer if isinstance(model.api, DertaAPI) else None
    plan = make_plan(options, tokenizer, is_organism=is_organism(str(model)))
    return make_tasks(model, plan)[name]
