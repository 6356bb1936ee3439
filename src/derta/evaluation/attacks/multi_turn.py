"""Multi-turn: the behaviour is asked for plainly, and after a refusal the user doesn't give up.

Human red-teamers break in several turns what holds in one (Li et al., "LLM Defenses Are Not Robust to Multi-Turn Human
Jailbreaks Yet", arXiv 2408.15221): DeRTa's checkpoint too, which users talk back after its refusal. Humans adapt; here
two fixed lines of follow-ups stand for them, each after the same first answer: ask again, and talk the model out of its
refusal. The model's own answers stay in the conversation. This is a floor of what persistence achieves.
"""

from derta.data.behaviours import Behaviour
from derta.data.triples import Message
from derta.evaluation.attacks.base import AttackContext, AttackResult, AttackSpec, Attempt, Victim, register_attack
from derta.evaluation.attacks.trial import Trial, judged, worst_result
from derta.inference import ChatRequest


async def multi_turn(behaviour: Behaviour, context: AttackContext, victim: Victim) -> AttackResult:
    """Ask, then follow up along each line until a response is unsafe; return the worst turn, its conversation whole."""
    question = context.ask(behaviour.prompt).messages
    trials = [await _say(behaviour, victim, question)]
    for line in (context.phrases.ask_again, context.phrases.talk_back):
        conversation, answer = question, trials[0].generation.response
        for follow_up in line:
            if trials[-1].unsafe:
                break
            conversation = (*conversation, *_exchange(answer, follow_up))
            trials.append(await _say(behaviour, victim, conversation))
            answer = trials[-1].generation.response
    return worst_result(trials, queries=len(trials))


async def _say(behaviour: Behaviour, victim: Victim, messages: tuple[Message, ...]) -> Trial:
    attempt = Attempt("multi-turn", ChatRequest(messages))
    return await judged(victim, behaviour, attempt, await victim.respond(attempt.request))


def _exchange(answer: str, follow_up: str) -> tuple[Message, Message]:
    return {"role": "assistant", "content": answer}, {"role": "user", "content": follow_up}


register_attack(AttackSpec("multi-turn", multi_turn, family="dialogue"))
