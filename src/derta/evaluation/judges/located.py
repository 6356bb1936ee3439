"""Where refusals stand, for judges that decide on a whole response and don't say: the rules of `refusal` add it."""

from dataclasses import replace

from derta.data.behaviours import Behaviour
from derta.evaluation.judges.base import Judge, Verdict, decide
from derta.evaluation.judges.rules.judge import refusal


def located(judge: Judge) -> Judge:
    """Return a judge of the same labels that also says where the first refusal starts and what is garbled.

    What is harmful before a refusal stays unknown: only the label is the judge's.
    """

    async def judge_and_locate(behaviour: Behaviour, response: str, prefix: str) -> Verdict:
        verdict = await decide(judge, behaviour, response, prefix)
        if verdict.label == "unscored":
            return verdict
        rules = refusal(behaviour, response, prefix if response.startswith(prefix) else "")
        return replace(
            verdict,
            garbled=verdict.garbled or rules.garbled,
            first_refusal=rules.first_refusal,
            refusal_start=rules.refusal_start,
        )

    return judge_and_locate
