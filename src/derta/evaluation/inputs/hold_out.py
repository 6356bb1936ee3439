"""Behaviours that stay for evaluation: whatever makes training data keeps them out, by id and by prompt."""

from collections.abc import Iterable
from dataclasses import dataclass

from derta.data.behaviours import plain_prompt
from derta.evaluation.inputs.behaviours import load_behaviours


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
        return cls(frozenset(b.id for b in behaviours), frozenset(plain_prompt(b.prompt) for b in behaviours))

    def holds(self, id_: str, prompt: str) -> bool:
        """Whether a behaviour is held out."""
        return id_ in self.ids or plain_prompt(prompt) in self.prompts
