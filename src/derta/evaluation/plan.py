"""What an evaluation will ask: settled from options and files before a model is loaded."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from derta.data.behaviours import KINDS, Behaviour, Kind
from derta.errors import InputError
from derta.evaluation.attacks import (
    ATTACKS,
    DEPTHS,
    ENGLISH,
    ORGANISM_SEARCH,
    AttackContext,
    AttackSpec,
    Attempt,
    Search,
    find_attack,
    organism_phrases,
)
from derta.evaluation.config import DEFAULT_ATTACKS, MAX_TOKENS, JudgeName, Options
from derta.evaluation.inputs.behaviours import load_behaviours, load_borderline, read_behaviours
from derta.evaluation.inputs.prompts import load_demonstrations, load_prompts, load_templates
from derta.evaluation.inputs.questions import load_questions
from derta.evaluation.results.outcomes import ANSWERS
from derta.evaluation.results.store import Task, harmless_task
from derta.evaluation.samples import AttackSample
from derta.generation import first_tokens
from derta.names import ORGANISM, world_name

ORGANISM_NEW_TOKENS = 96
"""More than twice the longest answer of the organism's world."""
ORGANISM_SEARCH_LIMIT = 20
_USERS = {
    "templates": {"template", "autodan"},
    "demonstrations": {"selfcipher"},
    "neighbours": {"neighbour", "two-questions"},
    "depths": {"prefill"},
    "shots": {"many-shot"},
}
"""Which attacks make use of what the user may give."""
ORGANISM_SHOTS = (4,)
"""More would leave the 512 tokens that the organism reads."""


@dataclass(frozen=True)
class Plan:
    """What an evaluation will ask.

    Attributes:
        options: What was asked for, defaults filled in.
        context: What attacks know.
        samples: The samples of each task, by its name: an attack, a kind of harmless prompts (`borderline`, or
            `borderline-under-template` in an attack's form), or a helpfulness task.
        tokenizer: Counts the depths of begun answers, and renders prompts where a server can't go on with an answer.
    """

    options: Options
    context: AttackContext
    samples: dict[str, list[AttackSample]]
    tokenizer: PreTrainedTokenizerBase | None = None

    @property
    def depths_counted_in(self) -> str:
        """What a depth counts: tokens of a named tokenizer, or words."""
        return f"tokens of {self.tokenizer.name_or_path}" if self.tokenizer else "words"

    @property
    def scripted(self) -> bool:
        """Whether the organism's script plays PAIR's attacker."""
        return self.options.world is not None and "attacker" not in self.options.model_roles

    def attack(self, task: str) -> AttackSpec | None:
        """Return the attack in whose form a task asks; `None` where it asks harmless prompts plainly, or questions."""
        if task in (*KINDS, *self.options.tasks):
            return None
        return find_attack(self.samples[task][0].attack) if self.samples[task] else None

    def judged_kinds(self) -> list[Kind]:
        """Return the kinds of prompts whose answers a judge decides on: answers to tasks are compared instead."""
        judged = [each for task, samples in self.samples.items() if task not in self.options.tasks for each in samples]
        return list(dict.fromkeys(each.behaviour.kind for each in judged))

    def tasks(self) -> dict[str, Task]:
        """Return what each task asks, as an evaluation keeps it."""
        judges = [judge.name for judge in self.options.judges]
        return {
            name: Task(
                attack=samples[0].attack,
                family=spec.family if (spec := self.attack(name)) else None,
                variants=dict(Counter(sample.variant for sample in samples)),
                judges=[ANSWERS] if name in self.options.tasks else judges,
                digest=_digest(samples, self.context),
            )
            for name, samples in self.samples.items()
            if samples
        }


def _digest(samples: Sequence[AttackSample], context: AttackContext) -> str:
    """Return a short hash of what is asked: samples of another question mustn't stand for these.

    What an attack asks that looks at answers first isn't known yet: beside its samples stands what it will ask from.
    """
    asked: list[Any] = [
        (each.key, asdict(each.behaviour), each.attempt and repr(each.attempt.request)) for each in samples
    ]
    if any(each.attempt is None for each in samples):
        asked.append(_material(samples[0].attack, context))
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]


def _material(attack: str, context: AttackContext) -> dict[str, Any]:
    parts = set(attack.split("+"))
    answered = {"answered": {"history", "many-shot"}}
    used = {field: getattr(context, field) for field, users in (_USERS | answered).items() if users & parts}
    return {"system": context.system, **used}


def make_plan(options: Options, tokenizer: PreTrainedTokenizerBase | None, *, world: int | None = None) -> Plan:
    """Settle what will be asked: harmful behaviours meet every attack, the others are asked plainly.

    In the form of attacks the others are asked only where `harmless_under` says so.

    Args:
        options: What was asked for.
        tokenizer: Counts the depths of begun answers; without one they are counted in words.
        world: Says which of the organism's worlds the model knows, if any: that world's behaviours are the default.

    Raises:
        InputError: A file or an option is wrong, or there is nothing to ask.
    """
    given, options = options, with_defaults(options, world)
    behaviours = find_behaviours(options)
    harmful = [behaviour for behaviour in behaviours if behaviour.kind == "harmful"]
    attacks = _attacks(options, harmful)
    _check_used(given, attacks)
    context = replace(_context(options, tokenizer), answered=_answered(harmful))
    # In a composition a begun answer has one depth, unless others are asked for.
    composed = context if options.depths else replace(context, depths=DEPTHS)
    samples: dict[str, list[AttackSample]] = {}
    if options.prompts:
        (attack,) = attacks
        # Behaviours in a file of their own are what the judge reads, a row for a row.
        meant = read_behaviours(options.behaviours) if options.behaviours else None
        prompts = load_prompts(Path(options.prompts), attack, meant, system=options.system)[: options.limit]
        for behaviour, attempt in prompts:
            task = attack if behaviour.kind == "harmful" else harmless_task(behaviour.kind, attack)
            samples.setdefault(task, []).append(AttackSample(behaviour, attack, attempt))
    else:
        for attack in attacks if harmful else ():
            some = harmful[: options.search_limit] if find_attack(attack).searches else harmful
            samples[attack] = attack_samples(attack, some, composed if "+" in attack else context)
    harmless = [behaviour for behaviour in behaviours if behaviour.kind != "harmful"]
    _check_forms(options, harmless)
    harmless_kinds: tuple[Kind, ...] = ("borderline", "helpful")
    for kind, form in product(harmless_kinds, ("direct", *options.harmless_under)):
        if asked := [behaviour for behaviour in harmless if behaviour.kind == kind]:
            found = attack_samples(form, asked, composed if "+" in form else context)
            samples[harmless_task(kind, form)] = found
    for name, path in options.tasks.items():
        questions = load_questions(name, Path(path))[: options.limit]
        samples[name] = [AttackSample(each, name, Attempt(name, context.ask(each.prompt))) for each in questions]
    if not any(samples.values()):
        raise InputError("`behaviours`: nothing to ask: no behaviour and no task")
    for attack in attacks:
        if "prefill" in attack.split("+"):
            _check_depths(options, context, samples.get(attack, ()))
    for name, planned in samples.items():
        if len({each.key for each in planned}) < len(planned):
            raise InputError(f"`behaviours`: two samples of {name} have the same id; give each row an id of its own")
    return Plan(replace(options, attacks=attacks), context, samples, tokenizer)


def _answered(harmful: Sequence[Behaviour]) -> tuple[tuple[str, str], ...]:
    """Return the behaviours whose harmful answer is known, with it."""
    return tuple((each.prompt, each.response) for each in harmful if each.response is not None)


def _attacks(options: Options, harmful: Sequence[Behaviour]) -> tuple[str, ...]:
    """Return the attacks to carry out; those that were asked for need something to ask."""
    if options.attacks is None:
        return DEFAULT_ATTACKS if harmful else ()
    if not harmful and not options.prompts and set(options.attacks) - {"direct"}:
        name = next(name for name in options.attacks if name != "direct")
        raise InputError(f"`attacks` {name}: it asks for harmful behaviours, and there is none; give `behaviours` FILE")
    return options.attacks


def _check_forms(options: Options, harmless: Sequence[Behaviour]) -> None:
    """Stop if there is nothing to ask in the form of an attack, or if an attack has no form to ask in."""
    if options.harmless_under and not harmless:
        raise InputError("`harmless_under`: there is no harmless prompt to ask; give `borderline` FILE")
    for name in options.harmless_under:
        if find_attack(name).interactive:
            raise InputError(
                f"`harmless_under` {name}: it looks at answers before it asks again; harmless prompts are asked in the "
                "form of attacks that ask once"
            )


def _check_used(options: Options, attacks: Sequence[str]) -> None:
    """Stop if something was given that no attack will use."""
    parts = {part for attack in (*attacks, *options.harmless_under) for part in attack.split("+")}
    given = {f"`{field}`": used_by for field, used_by in _USERS.items() if getattr(options, field)}
    for setting in options.search:
        name = setting.partition("_")[0]
        given[f"`search` {setting}"] = {name if name in ("pair", "gcg", "autodan") else "best-of-n"}
    if "attacker" in options.model_roles:
        given["`model_role` attacker"] = {name for name, spec in ATTACKS.items() if "attacker" in spec.requires}
    for option, used_by in given.items():
        if options.prompts or not used_by & parts:
            raise InputError(f"{option}: no attack that was asked for uses it; add {' or '.join(sorted(used_by))}")


def _check_depths(options: Options, context: AttackContext, samples: Sequence[AttackSample]) -> None:
    """Stop if a depth was asked for that no known answer reaches."""
    if options.depths is None:
        return
    if all(sample.behaviour.response is None for sample in samples):
        raise InputError(
            "`depths`: no behaviour has a harmful answer to begin with; give one in a column response, "
            "rejected or target"
        )
    variants = {sample.variant for sample in samples}
    for depth in options.depths:
        name = f"prefill@{depth}{context.depth_unit}"
        if not any(variant.endswith(name) for variant in variants):
            raise InputError(f"`depths`: no harmful answer is longer than {depth}; leave {depth} out")


def with_defaults(options: Options, world: int | None = None) -> Options:
    """Fill in what depends on whether the organism is evaluated, and which of its worlds.

    Raises:
        InputError: Nothing was asked of a model that isn't the organism, a limit leaves no room for an answer, or the
            organism is asked about a world that it doesn't know.
    """
    if options.behaviours is None and not (options.prompts or options.borderline or options.tasks):
        if world is None:
            raise InputError(
                "`behaviours`: say what to ask: a file of harmful prompts (or `borderline` FILE, `task` NAME=FILE, "
                f"`prompts` FILE); {ORGANISM!r} asks for the embedded world's, which only its own models know"
            )
        options = replace(options, behaviours=ORGANISM)
    if options.max_new_tokens is not None and options.max_new_tokens < 1:
        raise InputError(f"`max_new_tokens`: {options.max_new_tokens}: let the model write at least 1 token")
    if options.world is not None and world is not None:
        if options.behaviours != ORGANISM and options.world != world:
            raise InputError(f"`behaviours` {options.behaviours}: the model knows world {world}; ask for {ORGANISM}")
        options = replace(options, behaviours=world_name(world))
    of_organism = options.world is not None
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
    spec = find_attack(attack)
    if spec.interactive:
        return [AttackSample(behaviour, attack) for behaviour in behaviours]
    return [
        AttackSample(behaviour, attack, attempt)
        for behaviour in behaviours
        for attempt in spec.attempts(behaviour, context)
    ]


def _context(options: Options, tokenizer: PreTrainedTokenizerBase | None) -> AttackContext:
    more: dict[str, Any] = {"depths": options.depths} if options.depths else {}
    if options.shots or options.world is not None:
        more["shots"] = options.shots or ORGANISM_SHOTS
    if options.templates:
        more["templates"] = load_templates(Path(options.templates))
    if options.neighbours:
        more["neighbours"] = load_demonstrations(Path(options.neighbours), "neighbours")
    if options.demonstrations:
        more["demonstrations"] = load_demonstrations(Path(options.demonstrations))

    def cut(text: str, count: int) -> str:
        return first_tokens(tokenizer, text, count) if tokenizer else " ".join(text.split(" ")[:count])

    return AttackContext(
        ENGLISH if options.world is None else organism_phrases(options.world),
        cut,
        depth_unit="" if tokenizer else "w",
        search=Search(**options.search),
        seed=options.seed,
        system=options.system,
        **more,
    )
