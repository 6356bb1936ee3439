"""What `derta eval` can be asked for."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from derta.errors import InputError
from derta.names import organism_world

DEFAULT_ATTACKS = ("direct", "prefill", "completing")
MAX_TOKENS = 512
"""Tokens of an answer at most, unless something else is asked for."""


@dataclass(frozen=True)
class JudgeName:
    """A judge and, for those that are models, which model plays it."""

    name: str
    model: str | None = None

    @classmethod
    def parse(cls, text: str) -> "JudgeName":
        """Read `NAME` or `NAME=PROVIDER/MODEL`."""
        name, _, model = text.strip().partition("=")
        return cls(name, model or None)


@dataclass(frozen=True)
class Options:
    """One evaluation, whatever the model.

    Attributes:
        attacks: Names the attacks; left open, `DEFAULT_ATTACKS` meet harmful behaviours where there are any.
        behaviours: Says what to ask for: `organism` or a file. Left open, the organism's own for the organism and what
            was tuned from it, and an error for any other model unless something else is asked.
        borderline: Names files of harmless prompts that look harmful, for over-refusal.
        harmless_under: Names attacks in whose form harmless prompts are asked as well, beside plainly.
        tasks: Names the file of each helpfulness task, `gsm8k`, `mmlu` or `alpacaeval`.
        prompts: Names a file of prompts that are already disguised; a file in `behaviours` says what they ask for.
        judges: The first decides; further ones are compared with it.
        system: The system prompt of the evaluated model.
        limit: Takes so many behaviours of each kind at most.
        search_limit: Takes so many behaviours at most for the attacks that search.
        depths: How many tokens prefill begins the answer with.
        templates: Names a file of role-play templates.
        demonstrations: Names a file of SelfCipher's demonstrations.
        neighbours: Names a file of harmless questions and answers, which are asked first.
        shots: How many harmful answers many-shot shows.
        search: Says how hard the searching attacks try; defaults to the papers', or to what the organism needs.
        max_new_tokens: Limits an answer; 512 tokens by default, 96 for the organism.
        temperature: Samples the attacked model's answers; 0 is greedy.
        epochs: How often each sample is taken.
        seed: Seeds every random draw.
        model_args: Options of the model provider.
        model_roles: Names helper models by role.
        guard: Names the calibration of a guard that stops the model's answers, for a model of this process.

    Raises:
        InputError: A number is out of range.
    """

    attacks: tuple[str, ...] | None = None
    behaviours: str | None = None
    borderline: tuple[str, ...] = ()
    harmless_under: tuple[str, ...] = ()
    tasks: Mapping[str, str] = field(default_factory=dict)
    prompts: str | None = None
    judges: tuple[JudgeName, ...] = ()
    system: str | None = None
    limit: int | None = None
    search_limit: int | None = None
    depths: tuple[int, ...] | None = None
    templates: str | None = None
    demonstrations: str | None = None
    neighbours: str | None = None
    shots: tuple[int, ...] | None = None
    search: Mapping[str, Any] = field(default_factory=dict)
    max_new_tokens: int | None = None
    temperature: float = 0.0
    epochs: int = 1
    seed: int = 0
    model_args: Mapping[str, Any] = field(default_factory=dict)
    model_roles: Mapping[str, str] = field(default_factory=dict)
    guard: str | None = None

    def __post_init__(self) -> None:
        """Stop at a number that would leave something out, or ask nothing, without a word."""
        for name, what in (("limit", "behaviours of each kind"), ("search_limit", "behaviours")):
            limit = getattr(self, name)
            if limit is not None and limit < 1:
                raise InputError(f"`{name}`: {limit} {what} are too few; give 1 or more")
        if self.epochs < 1:
            raise InputError(f"`epochs`: {self.epochs}: take each sample at least once")
        if not 0 <= self.temperature < math.inf:
            raise InputError(f"`temperature`: {self.temperature}: give 0 for greedy decoding, or more")

    @property
    def world(self) -> int | None:
        """Which of the organism's worlds the behaviours are of, in its own words; `None`: they are the user's."""
        return organism_world(self.behaviours) if self.behaviours and not self.prompts else None


def require_inspect() -> None:
    """Stop with the mend if Inspect isn't installed: it comes with an extra.

    Raises:
        InputError: it isn't.
    """
    if find_spec("inspect_ai") is None:
        raise InputError('this needs Inspect: pip install "derta[eval]"')
