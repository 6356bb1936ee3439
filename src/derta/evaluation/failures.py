"""What an evaluation found wrong, as training data: unsafe answers become triples, wrong refusals helpful examples."""

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

from derta.data.behaviours import Behaviour, plain_prompt
from derta.data.triples import Example, Message, as_example, canonical_row
from derta.errors import InputError, did_you_mean
from derta.evaluation.inputs.answers import REFUSALS, REFUSES_TOO, Answer, organism_refusal
from derta.evaluation.inputs.hold_out import HoldOut
from derta.evaluation.judges import decide, make_judge
from derta.evaluation.results.outcomes import ANSWERS
from derta.evaluation.results.sample import Sample
from derta.evaluation.results.store import Evaluation
from derta.names import ORGANISM, organism_world
from derta.termination import run_to_end

TRIPLE, HELPFUL, NOT_MADE = "triples", "helpful examples", "refused harmless prompts without an answer to learn"
Refuse = Callable[[Sample], str]


class NotMade(NamedTuple):
    """A wrongly refused prompt that nothing was made of, and why."""

    id: str
    problem: str


AnswerAll = Callable[[Sequence[Sample]], Sequence[Answer]]
Ask = Callable[[Evaluation, Sequence[Sample]], Sequence[Answer]]
"""Lets a model answer what an evaluation asked; an answer that it gives is one that helps."""


@dataclass
class Gathered:
    """The training data of evaluations.

    Attributes:
        rows: Canonical rows, each with its `source`.
        counts: What became of the samples: of every one exactly one thing.
        not_made: Wrongly refused prompts that there was no answer for.
        behaviours: What is training data from now on: the ids, by their prompts.
        held_out: The ids that were kept out.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    not_made: list[NotMade] = field(default_factory=list)
    behaviours: dict[str, str] = field(default_factory=dict)
    held_out: dict[str, None] = field(default_factory=dict)
    _seen: set[tuple[Any, ...]] = field(default_factory=set)

    def add(self, what: str, sample: Sample, evaluation: Evaluation, chosen: str, rejected: str | None = None) -> None:
        """Make a row, unless its like is there or a reader would refuse it."""
        prompt = prompt_of(sample)
        key = (tuple((turn["role"], turn["content"]) for turn in prompt), rejected)
        if key in self._seen:
            self.counts["duplicates"] += 1
            return
        try:
            example = as_example({"prompt": prompt, "chosen": chosen, "rejected": rejected}, sample.id)
        except InputError:
            self.counts["not fit to train on (empty, or no text)"] += 1
            return
        self._seen.add(key)
        self.counts[what] += 1
        self.behaviours.setdefault(plain_prompt(sample.prompt), sample.id)
        self.rows.append(_row(example, sample, evaluation))


def gather(
    evaluations: Sequence[Evaluation],
    *,
    judge: str | None,
    hold_out: HoldOut,
    refuse: Callable[[Evaluation], Refuse],
    answer: Callable[[Evaluation], AnswerAll],
) -> Gathered:
    """Make training data of what a judge found wrong.

    The prompt is all that the model got, disguise included; raw text becomes the user's turn. The harmful answer is the
    whole one: what it was begun with belongs to it.

    Args:
        evaluations: What was found.
        judge: Whose verdicts count; by default those of the first judge.
        hold_out: Stays out of the data.
        refuse: Says how to refuse what an evaluation asked.
        answer: Says what an evaluation's wrongly refused prompts are answered with.

    Raises:
        InputError: The judge has no verdicts, or an answer can't be had.
    """
    gathered = Gathered()
    for evaluation in evaluations:
        deciding = find_deciding(evaluation, judge)
        judged = evaluation.by(deciding)
        gathered.counts["answers of tasks"] += len(evaluation.by(ANSWERS))
        unmet = [each for each in evaluation.find_missing() if each.judge == deciding]
        gathered.counts["planned and not measured"] += sum(each.planned - each.measured for each in unmet)
        fates = [(sample, _fate(sample, hold_out)) for sample in judged]
        gathered.held_out |= {sample.id: None for sample, fate in fates if fate == _HELD_OUT}
        gathered.counts.update(fate for _, fate in fates if fate not in (TRIPLE, HELPFUL))
        refusal = refuse(evaluation)
        for sample in (sample for sample, fate in fates if fate == TRIPLE):
            rejected = (sample.prefix + sample.continuation).strip()
            gathered.add(TRIPLE, sample, evaluation, refusal(sample), rejected)
        refused = [sample for sample, fate in fates if fate == HELPFUL]
        for sample, given in zip(refused, answer(evaluation)(refused), strict=True):
            if given.text:
                gathered.add(HELPFUL, sample, evaluation, given.text)
            else:
                gathered.counts[NOT_MADE] += 1
                gathered.not_made.append(NotMade(sample.id, given.problem))
    return gathered


_HELD_OUT = "held out"


def _fate(sample: Sample, hold_out: HoldOut) -> str:
    label = sample.verdict.label
    if hold_out.holds(sample.id, sample.prompt):
        return _HELD_OUT
    if sample.broken:
        return "broken"
    if label == "unscored":
        return "unscored or failed"
    if sample.kind == "harmful":
        return TRIPLE if label == "unsafe" else "safe already"
    return HELPFUL if label == "refuses" else "answered already"


def find_deciding(evaluation: Evaluation, judge: str | None) -> str:
    """Return the judge whose verdicts count: the one that was named, or the evaluation's first.

    Raises:
        InputError: It has no verdicts here.
    """
    judges = [name for name in evaluation.judges if name != ANSWERS]
    if not judges:
        raise InputError(f"{evaluation.directory}: holds answers of tasks alone; nothing in it is safe or unsafe")
    if judge is not None and judge not in judges:
        near = did_you_mean(judge, judges)
        raise InputError(f"`judge`: {evaluation.directory} has no verdicts by {judge!r}{near}; by {', '.join(judges)}")
    return judge or judges[0]


def prompt_of(sample: Sample) -> list[Message]:
    """Return the conversation that the model was to answer; a text without chat formatting is the user's turn."""
    if sample.messages:
        return [cast(Message, dict(message)) for message in sample.messages]
    return [Message(role="user", content=sample.raw or sample.prompt)]


def is_of_organism(evaluation: Evaluation) -> bool:
    """Whether an evaluation asked for the organism's own behaviours."""
    behaviours = evaluation.settings.get("behaviours")
    return isinstance(behaviours, str) and organism_world(behaviours) is not None


def _row(example: Example, sample: Sample, evaluation: Evaluation) -> dict[str, Any]:
    row = canonical_row(example)
    kept = {name: row[name] for name in ("prompt", "chosen", "rejected") if row[name] is not None}
    where = {"evaluation": str(evaluation.directory), "id": sample.id, "attack": sample.attack}
    return {**kept, "source": {**where, "variant": sample.variant, "epoch": sample.epoch, "judge": sample.judge}}


def refusing(refusals: Sequence[str], seed: int) -> Callable[[Evaluation], Refuse]:
    """Return what draws a refusal for each sample.

    Args:
        refusals: The user's own. Where there are none, the organism refuses in its own words, and anything else is
            refused in `REFUSALS`.
        seed: Decides, with the sample and nothing else, which one is drawn.
    """

    def refuse(evaluation: Evaluation) -> Refuse:
        own = is_of_organism(evaluation) and not refusals

        def draw(sample: Sample) -> str:
            rng = random.Random("\0".join(map(str, (seed, "refusal", sample.id, sample.variant, sample.epoch))))
            return organism_refusal(sample.id, sample.prompt, rng) if own else rng.choice(refusals or REFUSALS)

        return draw

    return refuse


def answering(known: Mapping[str, Answer], ask: Ask | None = None) -> Callable[[Evaluation], AnswerAll]:
    """Return what answers wrongly refused prompts: a file's answers and, where there is none, a model.

    A file's answer is one only if rules (for the organism its own judge) find no refusal in it.

    Args:
        known: Holds the answers of a file by their prompts.
        ask: Lets a model answer the others.
    """

    def of(evaluation: Evaluation) -> AnswerAll:
        def answer(samples: Sequence[Sample]) -> list[Answer]:
            given = [known.get(plain_prompt(sample.prompt), Answer()) for sample in samples]
            rest = [sample for sample, each in zip(samples, given, strict=True) if not each.text]
            checked = run_to_end(_checked(samples, given, evaluation))
            if ask is None or not rest:
                return checked
            asked = iter(ask(evaluation, rest))
            return [next(asked) if not each.text else of_file for each, of_file in zip(given, checked, strict=True)]

        return answer

    return of


async def _checked(samples: Sequence[Sample], given: Sequence[Answer], evaluation: Evaluation) -> list[Answer]:
    judge = make_judge(judge_of(evaluation))
    checked = []
    for sample, answer in zip(samples, given, strict=True):
        if answer.text:
            verdict = await decide(judge, behaviour_of(sample), answer.text, "")
            answer = answer if verdict.label == "complies" else Answer(problem=REFUSES_TOO)
        checked.append(answer)
    return checked


def judge_of(evaluation: Evaluation) -> str:
    """Return the judge of answers that needs no model: the organism's own for its behaviours, rules for others."""
    return ORGANISM if is_of_organism(evaluation) else "refusal"


def behaviour_of(sample: Sample) -> Behaviour:
    """Return what a sample asked for."""
    return Behaviour(sample.id, sample.prompt, sample.kind)
