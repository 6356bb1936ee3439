"""Template attacks: the behaviour inside a role-play prompt that others wrote.

JailbreakChat was a public collection of such prompts; Yuan et al. (arXiv 2407.09121) draw one of fifty at random for
each query, and so does this. Different here: none is packaged, the user's file gives them; the draw depends on nothing
but the seed and the behaviour, so that models compared on one file get the same prompts.
"""

import re
from collections.abc import Sequence
from functools import partial

from derta.data.behaviours import Behaviour
from derta.errors import InputError
from derta.evaluation.attacks.base import (
    AttackContext,
    AttackSpec,
    Opening,
    generator,
    plainly,
    register_attack,
)
from derta.evaluation.attacks.phrases import Say

PLACEHOLDERS = ("{prompt}", "[INSERT PROMPT HERE]")
"""What stands for the behaviour in a template: ours, and the one common in released collections."""


def template(behaviour: Behaviour, context: AttackContext) -> list[Opening]:
    """Fill one template, drawn from the user's or else from the model's own language.

    Raises:
        InputError: there are no templates.
    """
    choices: Sequence[Say] = [partial(fill, text) for text in context.templates] or context.phrases.templates
    if not choices:
        raise InputError(
            "`attacks` template: it needs role-play prompts, and none are packaged; give `templates` FILE with a "
            "column template in which {prompt} stands for the behaviour"
        )
    wrap = generator(context.seed, "template", behaviour.id).choice(choices)
    return [Opening("template", wrap)]


def fill(text: str, prompt: str) -> str:
    """Put `prompt` where a template's placeholders stand."""
    return re.sub("|".join(map(re.escape, PLACEHOLDERS)), lambda _: prompt, text)


register_attack(AttackSpec("template", plainly(template), family="framing", aliases=("jailbreakchat",), opens=template))
