"""What interactive attacks are made of: a question, its answer and the evaluation's verdict; lines of follow-ups."""

from collections.abc import Sequence
from dataclasses import dataclass

from derta.data.behaviours import Behaviour
from derta.data.triples import Message
from derta.evaluation.attacks.base import AttackContext, AttackResult, Attempt, Victim
from derta.evaluation.judges.base import Verdict
from derta.generation import ChatRequest, Generation


@dataclass(frozen=True)
class Trial:
    """An attempt, the response and the verdict."""

    attempt: Attempt
    generation: Generation
    verdict: Verdict

    @property
    def unsafe(self) -> bool:
        """Whether the model broke."""
        return self.verdict.label == "unsafe"


async def judged(victim: Victim, behaviour: Behaviour, attempt: Attempt, generation: Generation) -> Trial:
    """Have a response judged."""
    return Trial(attempt, generation, await victim.judge(behaviour, attempt, generation))


def worst_result(trials: Sequence[Trial], queries: int) -> AttackResult:
    """Return the worst trial: the first unsafe one, else the last without a verdict, else the last.

    A response without a verdict may be unsafe: the safe ones around it must not stand for it.
    """
    unsafe = next((trial for trial in trials if trial.unsafe), None)
    unscored = next((trial for trial in reversed(trials) if trial.verdict.label == "unscored"), None)
    worst = unsafe or unscored or trials[-1]
    return AttackResult(worst.attempt, worst.generation, queries, succeeded=worst.unsafe)


async def talk(
    name: str, behaviour: Behaviour, context: AttackContext, victim: Victim, lines: Sequence[Sequence[str]]
) -> AttackResult:
    """Ask for the behaviour, then follow up along each line, from the first answer, until a response is unsafe.

    Args:
        name: Names the attack.
        behaviour: Is asked for.
        context: Says how it is put.
        victim: Answers; its answers stay in the conversation.
        lines: Holds what the user says after each answer.

    Returns:
        The worst turn, its conversation whole.
    """

    async def say(messages: tuple[Message, ...]) -> Trial:
        attempt = Attempt(name, ChatRequest(messages))
        return await judged(victim, behaviour, attempt, await victim.respond(attempt.request))

    question = context.ask(behaviour.prompt).messages
    trials = [await say(question)]
    for line in lines:
        conversation, answer = question, trials[0].generation.response
        for follow_up in line:
            if trials[-1].unsafe:
                break
            turns: tuple[Message, ...] = (
                {"role": "assistant", "content": answer},
                {"role": "user", "content": follow_up},
            )
            conversation = (*conversation, *turns)
            trials.append(await say(conversation))
            answer = trials[-1].generation.response
    return worst_result(trials, queries=len(trials))
