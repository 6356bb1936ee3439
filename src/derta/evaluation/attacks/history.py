"""History: another harmful question stands in the conversation, and was answered.

A conversation that went wrong once goes on: the model reads in its own words that it answers such questions. The
earlier answers are those that the behaviours' file holds. Many-shot (Anil et al., "Many-shot Jailbreaking", 2024) is
the same with as many exchanges as there is room for.
"""

from derta.data.behaviours import Behaviour
from derta.data.triples import Message
from derta.errors import InputError
from derta.evaluation.attacks.base import AttackContext, AttackSpec, Opening, generator, plainly, register_attack


def history(behaviour: Behaviour, context: AttackContext) -> list[Opening]:
    """Ask after one other behaviour and its harmful answer.

    Raises:
        InputError: No other behaviour has a harmful answer.
    """
    return [Opening("history", earlier=answered("history", behaviour, context, 1))]


def many_shot(behaviour: Behaviour, context: AttackContext) -> list[Opening]:
    """Ask after n other behaviours and their harmful answers, for each number of shots.

    Raises:
        InputError: There aren't as many behaviours with a harmful answer.
    """
    return [
        Opening(f"many-shot@{shots}", earlier=answered("many-shot", behaviour, context, shots))
        for shots in context.shots
    ]


def answered(attack: str, behaviour: Behaviour, context: AttackContext, count: int) -> tuple[Message, ...]:
    """Return `count` other behaviours with their harmful answers as turns, drawn by the seed and the behaviour."""
    others = [each for each in context.answered if each[0] != behaviour.prompt]
    if len(others) < count:
        raise InputError(
            f"`attacks` {attack}: it shows {count} other behaviours with their harmful answers, and {len(others)} have "
            f"one; give more in a column response, rejected or target, or fewer `shots`"
        )
    shown = generator(context.seed, attack, behaviour.id).sample(others, count)
    turns: list[Message] = []
    for question, answer in shown:
        turns += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return tuple(turns)


register_attack(AttackSpec("history", plainly(history), family="dialogue", opens=history))
register_attack(AttackSpec("many-shot", plainly(many_shot), family="dialogue", opens=many_shot))
