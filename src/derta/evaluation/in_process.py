"""A plan's samples, taken from a model of this process without Inspect: while it trains, or under several biases."""

from typing import Any, cast

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from derta.errors import InputError
from derta.evaluation.judges import make_judge
from derta.evaluation.plan import Plan
from derta.evaluation.results.sample import Sample
from derta.evaluation.samples import judge_sample, make_sample
from derta.generation import Generation, stream
from derta.terminal import screen
from derta.termination import run_to_end, termination


def check_asks_once(plan: Plan, when: str) -> None:
    """Stop at an attack that looks at answers before it asks again.

    Args:
        plan: Holds the attacks.
        when: Says where only others are made, for the message.

    Raises:
        InputError: There is one.
    """
    for name in plan.samples:
        spec = plan.attack(name)
        if spec is not None and spec.interactive:
            raise InputError(
                f"`attacks`: {name} looks at answers before it asks again; {when} only attacks that ask once are made"
            )


def answer_and_judge(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    plan: Plan,
    *,
    chat_template_kwargs: dict[str, Any] | None = None,
) -> list[Sample]:
    """Let a model answer everything that a plan asks once, and judge the answers by rules.

    Args:
        model: Answers.
        tokenizer: Is its tokenizer.
        plan: Holds attacks that ask once; its judges are no models.
        chat_template_kwargs: Go to the chat template.

    Returns:
        One sample for each request; none if the process was asked to end meanwhile.
    """
    planned = [sample for samples in plan.samples.values() for sample in samples]
    requests = [cast(Any, sample.attempt).request for sample in planned]
    limit = cast(int, plan.options.max_new_tokens)
    answers: dict[int, Generation] = {}
    with screen.bar("attacking", len(planned)) as advance:
        for index, answer in stream(model, tokenizer, requests, limit, chat_template_kwargs=chat_template_kwargs):
            answers[index] = answer
            advance(1)
            # A training run that was asked to end wants to save; nothing else awaits the signal.
            if termination.asked:
                return []
    judges = {each.name: make_judge(each.name) for each in plan.options.judges}

    async def judged() -> list[Sample]:
        samples: list[Sample] = []
        for index, each in enumerate(planned):
            samples.append(await judge_sample(make_sample(each, answers[index]), judges, each.behaviour))
        return samples

    return run_to_end(judged())
