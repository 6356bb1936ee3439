"""What `derta eval` can be asked for."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from derta.errors import InputError
from derta.names import ORGANISM


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
        attacks: names.
        behaviours: `organism`, a file, or none.
        borderline: files of harmless prompts that look harmful, for over-refusal.
        tasks: helpfulness tasks: `gsm8k` or `mmlu` → file.
        prompts: a file of prompts that are already disguised; a file in `behaviours` says what they are about.
        judges: the first decides; further ones are compared with it.
        limit: behaviours of each kind at most.
        search_limit: behaviours at most for the attacks that search.
        depths: of prefill.
        templates: file of role-play templates.
        demonstrations: file of SelfCipher's demonstrations.
        search: how hard the searching attacks try; defaults to the papers', or to what the organism needs.
        max_new_tokens: of an answer; 512 by default, 96 for the organism.
        temperature: of the attacked model.
        epochs: how often each sample is taken.
        seed: of everything that is drawn.
        model_args: options of the model provider.
        model_roles: helper models by role.
    """

    attacks: tuple[str, ...]
    behaviours: str | None = ORGANISM
    borderline: tuple[str, ...] = ()
    tasks: Mapping[str, str] = field(default_factory=dict)
    prompts: str | None = None
    judges: tuple[JudgeName, ...] = ()
    limit: int | None = None
    search_limit: int | None = None
    depths: tuple[int, ...] | None = None
    templates: str | None = None
    demonstrations: str | None = None
    search: Mapping[str, Any] = field(default_factory=dict)
    max_new_tokens: int | None = None
    temperature: float = 0.0
    epochs: int = 1
    seed: int = 0
    model_args: Mapping[str, Any] = field(default_factory=dict)
    model_roles: Mapping[str, str] = field(default_factory=dict)


def require_inspect() -> None:
    """Stop with the mend if Inspect isn't installed: it comes with an extra.

    Raises:
        InputError: it isn't.
    """
    if find_spec("inspect_ai") is None:
        raise InputError('this needs Inspect: pip install "derta[eval]"')
