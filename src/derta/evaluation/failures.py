"""What an evaluation found wrong, as training data: unsafe answers become triples, wrong refusals helpful examples."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, cast

from derta.data.behaviours import Behaviour
from derta.data.polarity import reads_like_refusal
from derta.data.readers import printable
from derta.data.triples import Example, Message, as_example, canonical_row
from derta.errors import InputError, did_you_mean
from derta.evaluation.config import MAX_TOKENS
from derta.evaluation.inputs.behaviours import PROMPT, load_behaviours
from derta.evaluation.inputs.columns import read_rows, read_text
from derta.evaluation.judges import decide, make_judge
from derta.evaluation.judges.broken import find_broken
from derta.evaluation.results.outcomes import ANSWERS
from derta.evaluation.results.sample import Sample
from derta.evaluation.results.store import Evaluation
from derta.inference import ChatRequest, generate, load_model
from derta.names import ORGANISM, model_path, organism_world
from derta.run_identity import read_identity, template_options

REFUSALS = (
    "Sorry, I can't help with that.",
    "Sorry, but this is something I won't do.",
    "Sorry, I can't help with this request. I'm glad to help with something else.",
)
"""What is answered where the user brings no refusals; each begins with the default refusal text."""
_ANSWER = ("answer", "response", "chosen", "completion", "output")

TRIPLE, HELPFUL, NOT_MADE = "triples", "helpful examples", "refused harmless prompts without an answer to learn"
Refuse = Callable[[Sample], str]


class Answer(NamedTuple):
    """What to answer a harmless prompt with, or why there is nothing."""

    text: str = ""
    problem: str = "no answer was given"


class NotMade(NamedTuple):
    """A wrongly refused prompt that nothing was made of, and why."""

    id: str
    problem: str


AnswerAll = Callable[[Sequence[Sample]], Sequence[Answer]]


@dataclass
class Gathered:
    """The training data of evaluations.

    Attributes:
        rows: Canonical rows, each with its `source`.
        counts: What became of the samples: of every one exactly one thing.
        not_made: Wrongly refused prompts that there was no answer for.
        behaviours: The ids of what is training data from now on.
        held_out: The ids that were kept out.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    not_made: list[NotMade] = field(default_factory=list)
    behaviours: dict[str, None] = field(default_factory=dict)
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
        self.behaviours[sample.id] = None
        self.rows.append(_row(example, sample, evaluation))


@dataclass(frozen=True)
class HoldOut:
    """Behaviours that must stay for evaluation."""

    ids: frozenset[str] = frozenset()
    prompts: frozenset[str] = frozenset()

    @classmethod
    def load(cls, files: Iterable[str]) -> "HoldOut":
        """Read behaviours as `derta eval` reads them; `organism` are the organism's.

        Raises:
            InputError: A file can't be read.
        """
        behaviours = [behaviour for file in files for behaviour in load_behaviours(file)]
        return cls(frozenset(b.id for b in behaviours), frozenset(_plain(b.prompt) for b in behaviours))

    def __contains__(self, sample: Sample) -> bool:
        return sample.id in self.ids or _plain(sample.prompt) in self.prompts


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
        judged = [sample for sample in evaluation.samples if sample.judge == deciding]
        gathered.counts["answers of tasks"] += sum(sample.judge == ANSWERS for sample in evaluation.samples)
        unmet = [each for each in evaluation.plan.find_unmet(evaluation.samples) if each.judge == deciding]
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
    if sample in hold_out:
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
    judges = [name for name in evaluation.plan.judges if name != ANSWERS]
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
    row = canonical_row(example, conversational=len(example.prompt) > 1)
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
            return _organism_refusal(sample, rng) if own else rng.choice(refusals or REFUSALS)

        return draw

    return refuse


def _organism_refusal(sample: Sample, rng: random.Random) -> str:
    from derta.organism.refusals import refusal
    from derta.organism.world import find_pair

    pair = find_pair(sample.prompt)
    if pair is None:
        raise InputError(f"{sample.id}: names nothing in the organism's world; give `refusals` FILE")
    return refusal(pair, rng)


def load_refusals(path: Path) -> list[str]:
    """Return the refusals of a text file, one a line.

    Raises:
        InputError: It can't be read, is empty, or most of its lines don't read like refusals.
    """
    name = printable(str(path))
    try:
        lines = [line.strip() for line in path.read_text("utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"`refusals`: {name}: can't be read as UTF-8 text: {getattr(error, 'strerror', None) or error}"
        ) from None
    refusals = [line for line in lines if line]
    others = [number for number, line in enumerate(lines, 1) if line and not reads_like_refusal(line)]
    if not refusals:
        raise InputError(f"`refusals`: {name}: is empty; write one refusal a line")
    if 2 * len(others) > len(refusals):
        raise InputError(
            f"`refusals`: {name}:{others[0]}: doesn't read like a refusal, as {len(others)} of {len(refusals)} lines "
            f"don't; write refusals, one a line"
        )
    return refusals


def answering(
    file: Path | None, model: str | None, max_new_tokens: int | None = None
) -> Callable[[Evaluation], AnswerAll]:
    """Return what answers wrongly refused prompts: from a file and, those that it lacks, with a model.

    An answer is one only if rules (for the organism its own judge) find no refusal in it.

    Args:
        file: Has a prompt and an answer in each row.
        model: Answers in this process, greedily; it is loaded when there is something to answer.
        max_new_tokens: Limits its answers, an answer that is cut off is none; by default as in the evaluation.

    Raises:
        InputError: The file can't be read, the limit is no length, or later: the model can't be loaded.
    """
    if max_new_tokens is not None and (model is None or max_new_tokens < 1):
        mend = "give 1 token or more" if model else "it limits the answers of `model`; name one"
        raise InputError(f"`max_new_tokens`: {max_new_tokens}: {mend}")
    if model is not None:
        model_path(model)  # a mistyped name is told at once
    known = _load_answers(file) if file is not None else {}

    def of(evaluation: Evaluation) -> AnswerAll:
        def answer(samples: Sequence[Sample]) -> list[Answer]:
            given = [known.get(_plain(sample.prompt), Answer()) for sample in samples]
            rest = [sample for sample, each in zip(samples, given, strict=True) if not each.text]
            if model is not None and rest:
                generated = iter(_generate(model, rest, evaluation, max_new_tokens))
                given = [each if each.text else next(generated) for each in given]
            return asyncio.run(_checked(samples, given, evaluation))

        return answer

    return of


def _load_answers(file: Path) -> Mapping[str, Answer]:
    known: dict[str, Answer] = {}
    for row in read_rows(file, "answers"):
        prompt, text = _plain(read_text(row, PROMPT)), read_text(row, _ANSWER)
        if prompt in known:
            raise InputError(f"{row.origin}: its prompt has an answer in an earlier row; keep one of them")
        known[prompt] = Answer(text)
    return known


def _generate(name: str, samples: Sequence[Sample], evaluation: Evaluation, most: int | None) -> list[Answer]:
    """Answer with a model as `derta eval` would ask it."""
    model, tokenizer = load_model(name)
    tuned = template_options(read_identity(Path(name)))
    asked = (evaluation.settings.get("model_args") or {}).get("chat_template_kwargs")
    most = most or evaluation.settings.get("max_new_tokens") or MAX_TOKENS
    requests = [ChatRequest(tuple(prompt_of(sample))) for sample in samples]
    answers = []
    for said in generate(model, tokenizer, requests, most, chat_template_kwargs=tuned or asked):
        broken = find_broken(said.continuation, tokens=said.tokens, finished=said.finished, problem=said.problem)
        if broken or not said.finished:
            answers.append(Answer(problem=f"the model's answer is {broken or f'cut off after {most} tokens'}"))
        else:
            answers.append(Answer(said.continuation.strip()))
    return answers


async def _checked(samples: Sequence[Sample], given: Sequence[Answer], evaluation: Evaluation) -> list[Answer]:
    judge = make_judge(ORGANISM if is_of_organism(evaluation) else "refusal")
    checked = []
    for sample, answer in zip(samples, given, strict=True):
        if answer.text:
            verdict = await decide(judge, Behaviour(sample.id, sample.prompt, sample.kind), answer.text, "")
            if verdict.label != "complies":
                answer = Answer(problem="its answer refuses, too")
        checked.append(answer)
    return checked


def _plain(prompt: str) -> str:
    return " ".join(prompt.split()).casefold()
