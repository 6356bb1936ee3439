"""What an evaluation will ask: settled from options and files before a model is loaded."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from derta.data.behaviours import Behaviour
from derta.errors import InputError
from derta.evaluation.attacks import (
    ATTACKS,
    ENGLISH,
    ORGANISM_SEARCH,
    AttackContext,
    Attempt,
    Search,
    organism_phrases,
)
from derta.evaluation.config import MAX_TOKENS, JudgeName, Options
from derta.evaluation.inputs.behaviours import load_behaviours, load_borderline
from derta.evaluation.inputs.prompts import load_demonstrations, load_prompts, load_templates
from derta.evaluation.inputs.questions import load_questions
from derta.evaluation.results.metrics import ANSWERS
from derta.evaluation.results.store import PlannedSample, PlannedTask, prompt_digest
from derta.inference import first_tokens
from derta.names import ORGANISM

ORGANISM_NEW_TOKENS = 96
"""More than twice the longest answer of the organism's world."""
ORGANISM_SEARCH_LIMIT = 20


@dataclass(frozen=True)
class AttackSample:
    """One sample to be taken: a behaviour and, unless the attack finds it while it runs, what the model gets."""

    behaviour: Behaviour
    attack: str
    attempt: Attempt | None = None

    @property
    def variant(self) -> str:
        """The attack's name, or which of its variants this is."""
        return self.attempt.variant if self.attempt else self.attack

    @property
    def key(self) -> str:
        """The sample's id, unique within a task."""
        return f"{self.behaviour.id} | {self.variant}"


@dataclass(frozen=True)
class Plan:
    """What an evaluation will ask.

    Attributes:
        options: What was asked for, defaults filled in.
        context: What attacks know.
        samples: The samples of each task, by its name: an attack, a kind of harmless prompts, or a helpfulness task.
    """

    options: Options
    context: AttackContext
    samples: dict[str, list[AttackSample]]

    @property
    def scripted(self) -> bool:
        """Whether the organism's script plays PAIR's attacker."""
        return self.options.of_organism and "attacker" not in self.options.model_roles

    def tasks(self) -> dict[str, PlannedTask]:
        """Return what is asked as it is written down, by the task's name."""
        judges = [judge.name for judge in self.options.judges]
        return {
            name: PlannedTask(
                _digest(samples),
                [ANSWERS] if name in self.options.tasks else judges,
                self.options.epochs,
                [
                    PlannedSample(
                        each.behaviour.kind,
                        each.behaviour.id,
                        each.attack,
                        each.variant,
                        prompt_digest(each.behaviour.prompt),
                    )
                    for each in samples
                ],
            )
            for name, samples in self.samples.items()
        }


def _digest(samples: Sequence[AttackSample]) -> str:
    """Return a short hash of what is asked: samples of another question mustn't stand for these."""
    asked = [(each.key, asdict(each.behaviour), each.attempt and repr(each.attempt.request)) for each in samples]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]


def make_plan(options: Options, tokenizer: PreTrainedTokenizerBase | None) -> Plan:
    """Settle what will be asked: harmful behaviours meet every attack, the others are asked directly.

    Args:
        options: What was asked for.
        tokenizer: Counts the depths of begun answers; without one they are counted in words.

    Raises:
        InputError: A file or an option is wrong, or there is nothing to ask.
    """
    options = with_defaults(options)
    behaviours = find_behaviours(options)
    context = _context(options, tokenizer)
    samples: dict[str, list[AttackSample]] = {}
    if options.prompts:
        (attack,) = options.attacks
        # Behaviours in a file of their own are what the judge reads, a row for a row.
        meant = load_behaviours(options.behaviours) if options.behaviours else None
        prompts = load_prompts(Path(options.prompts), attack, meant, system=options.system)[: options.limit]
        samples[attack] = [AttackSample(behaviour, attack, attempt) for behaviour, attempt in prompts]
    else:
        harmful = [behaviour for behaviour in behaviours if behaviour.kind == "harmful"]
        for attack in options.attacks if harmful else ():
            some = harmful[: options.search_limit] if ATTACKS[attack].searches else harmful
            samples[attack] = attack_samples(attack, some, context)
    for kind in ("borderline", "helpful"):
        harmless = [behaviour for behaviour in behaviours if behaviour.kind == kind]
        if harmless:
            samples[kind] = attack_samples("direct", harmless, context)
    for name, path in options.tasks.items():
        questions = load_questions(name, Path(path))[: options.limit]
        samples[name] = [AttackSample(each, name, Attempt(name, context.ask(each.prompt))) for each in questions]
    if not any(samples.values()):
        raise InputError("`behaviours`: nothing to ask: no behaviour and no task")
    for name, some in samples.items():
        if len({each.key for each in some}) < len(some):
            raise InputError(f"`behaviours`: two samples of {name} have the same id; give each row an id of its own")
    return Plan(options, context, samples)


def with_defaults(options: Options) -> Options:
    """Fill in what depends on whether the organism is evaluated.

    Raises:
        InputError: The organism's judge is asked about another world.
    """
    if options.max_new_tokens is not None and options.max_new_tokens < 1:
        raise InputError(f"`max_new_tokens`: {options.max_new_tokens}: let the model write at least 1 token")
    of_organism = options.of_organism
    judge = JudgeName(ORGANISM if of_organism else "refusal")
    if not of_organism and any(each.name == ORGANISM for each in options.judges):
        raise InputError("`judge` organism: knows only the organism's own behaviours; use refusal or a model judge")
    return replace(
        options,
        judges=options.judges or (judge,),
        search=asdict(ORGANISM_SEARCH if of_organism else Search()) | dict(options.search),
        search_limit=options.search_limit or (ORGANISM_SEARCH_LIMIT if of_organism else None),
        max_new_tokens=options.max_new_tokens or (ORGANISM_NEW_TOKENS if of_organism else MAX_TOKENS),
    )


def find_behaviours(options: Options) -> list[Behaviour]:
    """Return what is to be asked for, from the organism and from files.

    Raises:
        InputError: A file is wrong.
    """
    found = [] if options.prompts or not options.behaviours else load_behaviours(options.behaviours, options.limit)
    for path in options.borderline:
        found += load_borderline(path, options.limit)
    return found


def attack_samples(attack: str, behaviours: Sequence[Behaviour], context: AttackContext) -> list[AttackSample]:
    """Return the samples of one attack."""
    spec = ATTACKS[attack]
    if spec.interactive:
        return [AttackSample(behaviour, attack) for behaviour in behaviours]
    return [
        AttackSample(behaviour, attack, attempt)
        for behaviour in behaviours
        for attempt in spec.attempts(behaviour, context)
    ]


def _context(options: Options, tokenizer: PreTrainedTokenizerBase | None) -> AttackContext:
    more: dict[str, Any] = {"depths": options.depths} if options.depths else {}
    if options.templates:
        more["templates"] = load_templates(Path(options.templates))
    if options.demonstrations:
        more["demonstrations"] = load_demonstrations(Path(options.demonstrations))

    def cut(text: str, count: int) -> str:
        return first_tokens(tokenizer, text, count) if tokenizer else " ".join(text.split(" ")[:count])

    return AttackContext(
        organism_phrases() if options.of_organism else ENGLISH,
        cut,
        search=Search(**options.search),
        seed=options.seed,
        system=options.system,
        **more,
    )
