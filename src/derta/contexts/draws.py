"""Which context each example stands in, drawn from (seed, epoch, example) alone."""

import math
import random
from collections.abc import Mapping
from typing import Any, NamedTuple

from derta.contexts.kinds import CONTEXTS
from derta.contexts.materials import Materials
from derta.data.triples import Example
from derta.errors import InputError, did_you_mean

PLAIN = "plain"
_ALONE = "raw"
"""Takes the chat's form away, so that nothing can be put around it."""

SETS: dict[str, dict[str, float]] = {
    "recommended": {
        "plain": 4,
        "small-talk": 1,
        "neighbour": 2,
        "refused": 1,
        "insist": 3,
        "role-play": 2,
        "role-play+insist": 1,
        "raw": 1,
        "encoded": 2,
        "noise": 2,
    },
}
"""Weights by name. `recommended` was chosen in the organism's packaged world and world 8: see docs/contexts.md."""


class Drawn(NamedTuple):
    """An example as an epoch sees it.

    Attributes:
        context: Names the context that was drawn.
        example: Stands in it; as it is, if it can't be made for it.
        made: Whether it was made.
    """

    context: str
    example: Example
    made: bool


class Contexts:
    """Draws a context for each example of each epoch, whatever the batch, the ranks and the kind of example.

    Args:
        weights: Say how often each context is drawn, as `context_weights` returns them.
        materials: Is what they are made of.
        seed: Fixes every draw together with the epoch and the example.
    """

    def __init__(self, weights: Mapping[str, float], materials: Materials, seed: int) -> None:
        self.weights = weights
        self._materials = materials
        self._seed = seed

    def __call__(self, index: int, epoch: int) -> Drawn:
        """Draw the context of the example at `index`, and put it there."""
        rng = random.Random(f"context {self._seed} {epoch} {index}")
        (name,) = rng.choices(list(self.weights), list(self.weights.values()))
        plain = self._materials.examples[index]
        example: Example | None = plain
        for part in name.split("+") if name != PLAIN else ():
            example = example and CONTEXTS[part](example, self._materials, rng)
        return Drawn(name, plain if example is None else example, example is not None)


def context_weights(contexts: Any) -> dict[str, float] | None:
    """Return the weights by context that an option asks for; `None` where every example stands plain.

    Args:
        contexts: Is `None`, "none", the name of one of `SETS`, or a mapping of contexts to weights. `a+b` puts an
            example into a, and the outcome into b.

    Raises:
        InputError: It names something else, or a weight is no number of 0 or more.
    """
    if contexts in (None, "none"):
        return None
    if isinstance(contexts, str):
        if contexts not in SETS:
            known = ("none", *SETS)
            raise InputError(
                f"contexts: no set {contexts!r}{did_you_mean(contexts, known)}; one of {', '.join(known)}, or a "
                "mapping of contexts to weights"
            )
        contexts = SETS[contexts]
    if not isinstance(contexts, Mapping) or not contexts:
        raise InputError(f"contexts: {contexts!r} is no mapping of contexts to weights")
    for name, weight in contexts.items():
        _check_name(name)
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < math.inf:
            raise InputError(f"contexts: {name}: {weight!r} is not a finite number of 0 or more")
    if not sum(contexts.values()):
        raise InputError("contexts: all weights are 0; give one context a weight, or leave contexts out")
    # In one order, whatever the recipe's: draws depend on it.
    order = [PLAIN, *CONTEXTS]
    names = sorted(contexts, key=lambda name: (order.index(name) if name in order else len(order), name))
    weights = {name: float(contexts[name]) for name in names if contexts[name]}
    return None if list(weights) == [PLAIN] else weights


def _check_name(name: Any) -> None:
    parts = str(name).split("+")
    for part in parts if name != PLAIN else ():
        if part not in CONTEXTS:
            hint = did_you_mean(part, (PLAIN, *CONTEXTS))
            raise InputError(f"contexts: no context {part!r}{hint}; there are {', '.join((PLAIN, *sorted(CONTEXTS)))}")
    if len(parts) > 1 and _ALONE in parts:
        raise InputError(f"contexts: {name}: {_ALONE} text has no turns to stand in or among; name {_ALONE} alone")
