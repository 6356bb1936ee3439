"""From prompts to training data, with the user's own model: refusals, and answers in the model's own words.

Each prompt is settled once, and what became of it is a line of a file beside the output: a run that was killed goes on
with the prompts that are missing. Of what the model said only what was accepted is ever written.
"""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from derta.data.behaviours import Behaviour, Kind, plain_prompt
from derta.data.polarity import reads_like_harmful_request, reads_like_refusal
from derta.data.triples import as_example
from derta.errors import InputError, first_line
from derta.evaluation.harness.writer import Writer
from derta.evaluation.inputs.answers import Answer, organism_refusal
from derta.evaluation.inputs.hold_out import HoldOut
from derta.files import write_text
from derta.termination import run_to_end

TRIPLES, REFUSALS_ALONE = "triples", "refusals without a harmful response"
HELPFUL, BORDERLINE = "helpful examples", "borderline examples"
MADE = (TRIPLES, REFUSALS_ALONE, HELPFUL, BORDERLINE)

LEFT_OUT = "left out"


@dataclass(frozen=True)
class Prompt:
    """A prompt of the user's, and where it stands ("file:line")."""

    origin: str
    behaviour: Behaviour


@dataclass(frozen=True)
class Outcome:
    """What became of a prompt: one thing of `MADE` with its row, or why it was left out."""

    what: str
    row: dict[str, Any] | None = None
    problem: str = ""


@dataclass
class Generated:
    """What became of every prompt, by its origin and in the order of the files.

    Attributes:
        outcomes: The prompts that were settled.
        failed: Those that the model couldn't be asked, and why: nothing is known of them.
    """

    outcomes: dict[str, Outcome] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The training data."""
        return [outcome.row for outcome in self.outcomes.values() if outcome.row is not None]

    @property
    def left_out(self) -> dict[str, str]:
        """Why prompts made no row."""
        return {origin: outcome.problem for origin, outcome in self.outcomes.items() if outcome.row is None}

    def counts(self) -> dict[str, int]:
        """Count what became of the prompts."""
        return dict(Counter(outcome.what for outcome in self.outcomes.values()))

    def written(self) -> dict[str, int]:
        """Count who wrote the answers, and at which try."""
        return dict(Counter(_how(row["made_by"]) for row in self.rows))


def _how(made_by: Mapping[str, Any]) -> str:
    instruction = " under an instruction" if made_by["instruction"] is not None else ""
    return str(made_by["writer"]) if not made_by["try"] else f"model{instruction}, try {made_by['try']}"


def sift(prompts: Iterable[Prompt], hold_out: HoldOut) -> dict[str, Outcome]:
    """Return which prompts are not to be asked, by origin, and why.

    Of the same prompt only the first counts: where the harmful ones come first, none of them is answered as harmless.
    """
    seen: dict[str, str] = {}
    left_out: dict[str, Outcome] = {}
    for prompt in prompts:
        behaviour, plain = prompt.behaviour, plain_prompt(prompt.behaviour.prompt)
        problem = ""
        if hold_out.holds(behaviour.id, behaviour.prompt):
            problem = "held out"
        elif plain in seen:
            problem = f"the same prompt as {seen[plain]}"
        elif behaviour.kind == "helpful" and reads_like_harmful_request(behaviour.prompt):
            problem = "reads like a harmful request; if it is harmless, give it as borderline"
        elif behaviour.kind == "harmful" and behaviour.response and reads_like_refusal(behaviour.response):
            problem = "its harmful response reads like a refusal"
        seen.setdefault(plain, prompt.origin)
        if problem:
            left_out[prompt.origin] = Outcome(LEFT_OUT, problem=problem)
    return left_out


@dataclass(frozen=True)
class Maker:
    """Makes rows of prompts.

    Attributes:
        writer: Writes answers and refusals.
        model: Its name, for the rows.
        judge: The judge's name.
        of_organism: Whether the organism refuses in its own words: no instruction moves it.
        refusals: The user's own, for prompts that the model doesn't refuse.
    """

    writer: Writer
    model: str
    judge: str
    of_organism: bool = False
    refusals: Sequence[str] = ()

    async def make(self, prompt: Prompt) -> Outcome:
        """Make a row of a prompt, if an answer is accepted."""
        behaviour = prompt.behaviour
        answer = await (self._refuse(behaviour) if behaviour.kind == "harmful" else self.writer.answer(behaviour))
        if not answer.text:
            return Outcome(LEFT_OUT, problem=answer.problem)
        row = {"prompt": behaviour.prompt, "chosen": answer.text}
        if behaviour.response:
            row["rejected"] = behaviour.response
        try:
            as_example(row, prompt.origin)
        except InputError:
            return Outcome(LEFT_OUT, problem="no row to train on: a text is empty, no text, or twice the same")
        made_by = {
            "model": self.model,
            "writer": answer.writer or "model",
            "instruction": answer.instruction,
            "try": answer.tries,
            "judge": None if answer.writer else self.judge,
        }
        return Outcome(_what(behaviour), {**row, "origin": prompt.origin, "made_by": made_by})

    async def _refuse(self, behaviour: Behaviour) -> Answer:
        rng = random.Random("\0".join(map(str, (self.writer.seed, "refusal", behaviour.id))))
        if self.of_organism and not self.refusals:
            try:
                return Answer(organism_refusal(behaviour.id, behaviour.prompt, rng), writer="the organism's refusals")
            except InputError as error:
                return Answer(problem=str(error))
        answer = Answer(problem="") if self.of_organism else await self.writer.refuse(behaviour)
        if answer.text or not self.refusals:
            return answer
        return Answer(rng.choice(self.refusals), writer="the user's refusals")


def _what(behaviour: Behaviour) -> str:
    if behaviour.kind == "harmful":
        return TRIPLES if behaviour.response else REFUSALS_ALONE
    names: dict[Kind, str] = {"helpful": HELPFUL, "borderline": BORDERLINE}
    return names[behaviour.kind]


def generate(
    prompts: Sequence[Prompt],
    maker: Maker,
    *,
    left_out: Mapping[str, Outcome],
    progress: Path,
    settings: Mapping[str, Any],
    advance: Callable[[int], None],
) -> Generated:
    """Settle every prompt, or those that an earlier run of the same settings left.

    Args:
        prompts: All prompts, in the order of the rows to come.
        maker: Makes a row of each.
        left_out: Which of them aren't asked, by origin, and why.
        progress: The file of what is settled; a killed run leaves it.
        settings: What makes two runs the same.
        advance: Is called with the number of prompts that were settled.

    Raises:
        InputError: `progress` is of a run with other settings, or can't be written.
    """
    try:
        known = _settled(progress, settings) | dict(left_out)
        rest = [prompt for prompt in prompts if prompt.origin not in known]
        advance(len(prompts) - len(rest))
        with progress.open("a", encoding="utf-8") as file:

            def settle(prompt: Prompt, outcome: Outcome) -> None:
                file.write(json.dumps({"origin": prompt.origin, **asdict(outcome)}, ensure_ascii=False) + "\n")
                file.flush()
                known[prompt.origin] = outcome
                advance(1)

            failed = run_to_end(_make_all(rest, maker, settle))
    except OSError as error:
        raise InputError(f"`out`: {progress}: can't be written: {error.strerror or error}") from None
    return Generated({each.origin: known[each.origin] for each in prompts if each.origin in known}, failed)


async def _make_all(
    prompts: Sequence[Prompt], maker: Maker, settle: Callable[[Prompt, Outcome], None]
) -> dict[str, str]:
    """Make rows side by side; return the prompts whose model couldn't be asked, and why."""
    failed: dict[str, str] = {}
    # A server gets as many at a time as Inspect allows its provider; a model in this process batches them itself.
    slots = asyncio.Semaphore(maker.writer.model.api.max_connections())

    async def make(prompt: Prompt) -> None:
        async with slots:
            try:
                outcome = await maker.make(prompt)
            except Exception as error:
                failed[prompt.origin] = f"{type(error).__name__}: {first_line(error)}"
                return
        settle(prompt, outcome)

    await asyncio.gather(*map(make, prompts))
    return failed


def _settled(progress: Path, settings: Mapping[str, Any]) -> dict[str, Outcome]:
    """Read what an earlier run settled, and cut off the line that a kill tore; begin the file where there is none."""
    *whole, torn = (progress.read_text("utf-8", "replace") if progress.exists() else "").split("\n")
    head = json.dumps(settings, ensure_ascii=False)
    if whole and whole[0] != head:
        raise InputError(
            f"`out`: {progress}: is of a run with other options, prompts or weights; give those again, name another "
            f"file, or begin anew with `overwrite`"
        )
    if torn or not whole:
        write_text(progress, "".join(f"{line}\n" for line in whole or [head]))
    entries = [json.loads(line) for line in whole[1:]]
    return {each.pop("origin"): Outcome(**each) for each in entries}
