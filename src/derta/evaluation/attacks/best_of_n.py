"""Best of N (for the attacker): the plain question, answered N times at a temperature; the worst answer counts.

The sampling study of Yuan et al. (arXiv 2407.09121): a model that is safe greedily may not be in one sample of many.
Hughes et al., "Best-of-N Jailbreaking" (arXiv 2412.03556), also draw a new augmentation of the prompt (case, spelling,
order of letters) for each sample; here the prompt stays the same, so that nothing but the sampling is measured.
"""

import asyncio

from derta.data.behaviours import Behaviour
from derta.evaluation.attacks.base import (
    AttackContext,
    AttackResult,
    AttackSpec,
    Attempt,
    Victim,
    generator,
    register_attack,
)
from derta.evaluation.attacks.trial import judged, worst_result


async def best_of_n(behaviour: Behaviour, context: AttackContext, victim: Victim) -> AttackResult:
    """Draw all samples at once and judge them in order, up to the first unsafe one."""
    attempt = Attempt("best-of-n", context.ask(behaviour.prompt))
    search = context.search
    generations = await asyncio.gather(
        *(
            victim.respond(
                attempt.request,
                temperature=search.temperature,
                seed=generator(context.seed, attempt.variant, behaviour.id, i).randrange(2**31),
            )
            for i in range(search.samples)
        )
    )
    trials = []
    for generation in generations:
        trials.append(await judged(victim, behaviour, attempt, generation))
        if trials[-1].unsafe:
            break
    return worst_result(trials, queries=search.samples)


register_attack(AttackSpec("best-of-n", best_of_n, family="search", goes_on=True))
