"""What fuzzing draws: documents, and changes to a document; and for how long it goes on."""

import copy
import os
import time
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

SECONDS = float(os.environ.get("DERTA_FUZZ_SECONDS", "0"))
"""How long each target is fuzzed; without it, a few examples."""

TEXT = st.one_of(
    st.text(max_size=12), st.sampled_from(["", "..", "a/../b", "\ud800", "\x1b[2J", "NaN", "-", "1e999", "\0"])
)
SCALAR = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.sampled_from([0, -1, 2**63, 2**64, 10**400, 1e308, -0.0]),
    TEXT,
)
VALUE = st.recursive(
    SCALAR, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)), max_leaves=6
)


def fuzz(check: Callable[[], None]) -> None:
    """Run a property: a few examples, or anew until the time is over."""
    few = settings(max_examples=25 if not SECONDS else 200, database=None, suppress_health_check=list(HealthCheck))
    ends, few_examples = time.monotonic() + SECONDS, few(check)
    few_examples()
    while time.monotonic() < ends:
        few_examples()


def places(document: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Name every place of a document, its own first."""
    inside: list[tuple[Any, Any]] = []
    if isinstance(document, dict):
        inside = list(document.items())
    elif isinstance(document, list):
        inside = list(enumerate(document[:3]))
    return [at, *(place for key, value in inside for place in places(value, (*at, key)))]


@st.composite
def changed(draw: st.DrawFn, document: Any) -> Any:
    """A document with a value put in, taken out or doubled somewhere."""
    found = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.sampled_from(places(found)))
        if not place:
            if draw(st.integers(0, 9)) == 0:
                return draw(VALUE)
            continue
        holder = found
        for key in place[:-1]:
            holder = holder[key]
        action = draw(st.sampled_from(["put", "put", "take", "add"]))
        if action == "put":
            holder[place[-1]] = draw(VALUE)
        elif action == "take":
            del holder[place[-1]]
        elif isinstance(holder, list):
            holder.append(draw(st.one_of(VALUE, st.just(copy.deepcopy(holder[place[-1]])))))
        else:
            holder[draw(TEXT)] = draw(VALUE)
    return found


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Bytes with some of them changed, cut off, doubled or put in."""
    found = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(found) - 1)))
        size = draw(st.integers(0, 40))
        action = draw(st.sampled_from(["flip", "cut", "double", "put"]))
        if action == "flip" and found:
            found[at] ^= 1 << draw(st.integers(0, 7))
        elif action == "cut":
            del found[at : at + size]
        elif action == "double":
            found[at:at] = found[at : at + size]
        else:
            found[at:at] = draw(st.binary(max_size=8))
    return bytes(found)
