"""What every attack takes and gives.

An attack of one question is a function from a behaviour to the attempts at it. An interactive attack looks at what the
model says before it asks again: it is a coroutine that talks to a [`Victim`]. Neither knows who runs it. Attacks that
only change how the behaviour is put say so as [`Opening`]s: any other attack can then begin from these.
"""

import random
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from inspect import iscoroutinefunction
from typing import Any, Literal, Protocol, cast

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from derta.data.behaviours import Behaviour
from derta.data.triples import Message
from derta.evaluation.attacks.phrases import Demonstration, Phrases
from derta.evaluation.judges.base import Verdict
from derta.generation import ChatRequest, Generation, Request


def as_is(response: str) -> str:
    """Return a response unchanged: most attacks don't disguise the answer."""
    return response


@dataclass(frozen=True)
class Attempt:
    """One way an attack asks for a behaviour.

    Attributes:
        variant: The attack's name, or which of its variants this is: `prefill@5`. Unique for a behaviour.
        request: What the model gets.
        decode: Turns the whole response into the plain words that a judge reads (answers in cipher).
    """

    variant: str
    request: Request
    decode: Callable[[str], str] = as_is


@dataclass(frozen=True)
class Opening:
    """How an attack puts a behaviour to the model: other attacks begin the answer, or go on talking, from here.

    Attributes:
        variant: The attack's name, or which of its variants this is. Unique for a behaviour.
        rewrite: Turns the plain question into the last user turn.
        earlier: The conversation before it.
        encode: Turns the beginning of a plain answer into that of the answer which is asked for.
        decode: Undoes `encode`, for the judge.
    """

    variant: str
    rewrite: Callable[[str], str] = as_is
    earlier: tuple[Message, ...] = ()
    encode: Callable[[str], str] = as_is
    decode: Callable[[str], str] = as_is

    def then(self, inner: "Opening") -> "Opening":
        """Return the opening that is put this way first and then, as a whole, the way of `inner`."""
        return Opening(
            f"{self.variant}+{inner.variant}",
            lambda prompt: inner.rewrite(self.rewrite(prompt)),
            (*self.earlier, *inner.earlier),
            lambda answer: inner.encode(self.encode(answer)),
            lambda answer: self.decode(inner.decode(answer)),
        )


@dataclass(frozen=True)
class Search:
    """How hard the searching attacks try. The defaults are the papers'.

    Attributes:
        samples: How many answers best-of-n draws for a behaviour.
        temperature: Samples the answers of best-of-n.
        pair_streams: How many conversations PAIR holds side by side.
        pair_iterations: How many attempts each of them has.
        gcg_steps: How many steps GCG's coordinate descent takes.
        gcg_width: How many candidates GCG tries in a step.
        gcg_length: How many tokens GCG's suffix has.
        gcg_top: From how many tokens, the best by gradient, GCG draws a replacement at each position.
        autodan_generations: How many generations AutoDAN breeds.
        autodan_population: How many prompts a generation has.
    """

    samples: int = 16
    temperature: float = 1.0
    pair_streams: int = 20
    pair_iterations: int = 3
    gcg_steps: int = 500
    gcg_width: int = 512
    gcg_length: int = 20
    gcg_top: int = 256
    autodan_generations: int = 100
    autodan_population: int = 256


ORGANISM_SEARCH = Search(
    samples=8,
    pair_streams=5,
    gcg_steps=12,
    gcg_width=32,
    gcg_length=3,
    gcg_top=128,
    autodan_generations=5,
    autodan_population=16,
)
"""A second of one core at most for each of GCG and AutoDAN: enough to break a model that only refuses at the start."""


@dataclass(frozen=True)
class AttackContext:
    """What an attack knows of the model it attacks, and what the user gave it.

    Attributes:
        phrases: The attack's words in the model's language.
        first_tokens: Cuts a text to its first n tokens, as the model counts them.
        depths: How many tokens of a harmful response prefill attacks begin the answer with.
        depth_unit: What stands behind a depth in a variant's name: nothing for the model's tokens, `w` for words.
        templates: Role-play prompts of the user's file; `{prompt}` stands for the behaviour. They replace those of
            `phrases`.
        demonstrations: Questions and answers in the clear, for SelfCipher, from the user's file. They replace those of
            `phrases`.
        search: Says how hard the searching attacks try.
        neighbours: Harmless questions and answers of the user's file. They replace those of `phrases`.
        answered: Harmful behaviours and their answers, of the same file.
        shots: How many of them many-shot shows.
        seed: Seeds every random draw.
        system: The system prompt of every conversation, if the user gave one. Raw text has none.
        opening: How behaviours are put; `None`: in their own words.
    """

    phrases: Phrases
    first_tokens: Callable[[str, int], str]
    depths: tuple[int, ...] = (5, 10, 20, 30, 50, 100, 200, 500)
    depth_unit: str = ""
    templates: tuple[str, ...] = ()
    demonstrations: tuple[Demonstration, ...] = ()
    neighbours: tuple[Demonstration, ...] = ()
    answered: tuple[Demonstration, ...] = ()
    shots: tuple[int, ...] = (4, 16, 64)
    search: Search = field(default_factory=Search)
    seed: int = 0
    system: str | None = None
    opening: Opening | None = None

    def ask(self, prompt: str, prefix: str = "") -> ChatRequest:
        """Return a request for a plain question, put as the opening says, with an answer begun by `prefix`."""
        if self.opening is None:
            return ask(prompt, prefix, system=self.system)
        put = self.opening
        return ask(put.rewrite(prompt), put.encode(prefix) if prefix else "", system=self.system, earlier=put.earlier)


Role = Literal["attacker", "judge"]


@dataclass(frozen=True)
class Weights:
    """The attacked model itself, for attacks that use its gradients.

    Attributes:
        model: The model, in evaluation mode.
        tokenizer: Its tokenizer.
        chat_template_kwargs: What its prompts were rendered with in training.
        exclusive: Keeps others off the model during one pass. It is entered in a worker thread, and never while the
            model is asked to respond.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    chat_template_kwargs: dict[str, object] | None = None
    exclusive: Callable[[], AbstractContextManager[None]] = nullcontext


class Victim(Protocol):
    """The attacked model and its surroundings, as an interactive attack sees them."""

    @property
    def weights(self) -> Weights | None:
        """The live model, `None` behind an API."""

    async def respond(self, request: Request, *, temperature: float = 0.0, seed: int = 0) -> Generation:
        """Let the attacked model answer; greedily unless `temperature` is above 0."""

    async def judge(self, behaviour: Behaviour, attempt: Attempt, generation: Generation) -> Verdict:
        """Decide on a response as the evaluation will: decoded, whole, its prefix known."""

    async def ask(self, role: Role, messages: Sequence[Message]) -> str:
        """Ask a helper model (`attacker` or `judge`); `InputError` if the user named none."""


@dataclass(frozen=True)
class AttackResult:
    """What an interactive attack ends with: the attempt that counts, and the response to it.

    Attributes:
        attempt: The last request, or the one that broke the model.
        generation: The model's response to it.
        queries: How often the attacked model was asked.
        succeeded: Whether the attack itself takes the response for a success; the judge has the last word.
        details: Counts of the attack's own, for the record: PAIR's score and the streams it had to drop.
    """

    attempt: Attempt
    generation: Generation
    queries: int
    succeeded: bool
    details: Mapping[str, int] = field(default_factory=dict)


class AttackError(RuntimeError):
    """An interactive attack could not be carried out on a behaviour: its sample is unscored, which isn't safe."""


StaticAttack = Callable[[Behaviour, AttackContext], list[Attempt]]
InteractiveAttack = Callable[[Behaviour, AttackContext, Victim], Coroutine[Any, Any, AttackResult]]
Opens = Callable[[Behaviour, AttackContext], list[Opening]]
Family = Literal["direct", "begun answer", "framing", "encoding", "dialogue", "search"]
Capability = Literal["raw", "prefill", "weights", "attacker"]
"""What an attack needs: text without chat tokens, an answer begun for the model, its gradients, a helper model."""


@dataclass(frozen=True)
class AttackSpec:
    """All that there is to know about an attack.

    Attributes:
        name: Names the attack on the command line and in results.
        run: Returns the attempts at a behaviour or, for an interactive attack, talks to the victim itself.
        family: Groups attacks of one kind, one of [`Family`]; a composition's names those of its parts.
        requires: Lists what the attack needs of the model or its surroundings.
        aliases: Other names that it is known by.
        opens: Says how it puts a behaviour, if other attacks can begin from there.
        goes_on: Whether it can begin from another attack's opening.
    """

    name: str
    run: StaticAttack | InteractiveAttack
    family: Family | str
    requires: frozenset[Capability] = frozenset()
    aliases: tuple[str, ...] = ()
    opens: Opens | None = None
    goes_on: bool = False

    @property
    def interactive(self) -> bool:
        """Whether the attack looks at what the model says before it asks again."""
        return iscoroutinefunction(self.run)

    @property
    def searches(self) -> bool:
        """Whether the attack searches for its prompt: it takes long, and a file can hold what it found."""
        return bool(self.requires & {"weights", "attacker"})

    def attempts(self, behaviour: Behaviour, context: AttackContext) -> list[Attempt]:
        """Return what an attack of one question asks for a behaviour."""
        return cast(StaticAttack, self.run)(behaviour, context)

    async def play(self, behaviour: Behaviour, context: AttackContext, victim: Victim) -> AttackResult:
        """Let an interactive attack talk to the victim."""
        return await cast(InteractiveAttack, self.run)(behaviour, context, victim)


def ask(prompt: str, prefix: str = "", *, system: str | None = None, earlier: tuple[Message, ...] = ()) -> ChatRequest:
    """Return a request whose last turn is the user's `prompt`, with an answer begun by `prefix`.

    A system prompt, if there is one, and `earlier` turns come before it.
    """
    first: tuple[Message, ...] = ({"role": "system", "content": system},) if system else ()
    return ChatRequest((*first, *earlier, {"role": "user", "content": prompt}), prefix)


def plainly(opens: Opens) -> StaticAttack:
    """Return the attack that puts a behaviour as its openings say, and no more."""

    def run(behaviour: Behaviour, context: AttackContext) -> list[Attempt]:
        return [
            Attempt(opening.variant, replace(context, opening=opening).ask(behaviour.prompt), opening.decode)
            for opening in opens(behaviour, context)
        ]

    return run


GROUPS = ("all", "combined")
"""Names that stand for several attacks."""
ATTACKS: dict[str, AttackSpec] = {}
"""Every attack by its name, in the order of tables: what `all` stands for."""


def register_attack(spec: AttackSpec) -> None:
    """Make an attack known by its name and aliases.

    Raises:
        ValueError: Another attack, or a group of them, has one of these names.
    """
    taken = {name for each in ATTACKS.values() for name in (each.name, *each.aliases)}
    for name in (spec.name, *spec.aliases):
        if name in (*taken, *GROUPS):
            raise ValueError(f"there is an attack {name!r} already")
    ATTACKS[spec.name] = spec


def generator(*parts: object) -> random.Random:
    """Return a random generator that depends on nothing but `parts`: a seed, an attack, a behaviour's id, …"""
    return random.Random("\0".join(map(str, parts)))
