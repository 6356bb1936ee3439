"""What prompts have in common at their beginning, so that it is computed once."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

# Tokens that a shared beginning must add to the one it continues.
_LEAST_TOKENS = 16
# Tokens that it must save in all: a forward pass of its own costs about as much.
_LEAST_SAVED = 256


@dataclass(frozen=True)
class Arrangement:
    """An order in which prompts that begin alike are neighbours, and the beginnings worth sharing.

    Attributes:
        order: indices of the prompts; groups with longer prompts come first.
        shared: for each prompt, the lengths of its shared beginnings, ascending, all shorter than the prompt.
    """

    order: list[int]
    shared: list[list[int]]


def arrange(prompts: Sequence[Sequence[int]], others: Sequence[Sequence[int]] = ()) -> Arrangement:
    """Find what `prompts` share among themselves and with `others`, which aren't ordered."""
    everything = [*prompts, *others]
    alphabetical = sorted(range(len(everything)), key=lambda index: list(everything[index]))
    common = [_common(everything[one], everything[other]) for one, other in pairwise(alphabetical)]
    shared: list[list[int]] = [[] for _ in everything]
    sort_keys: list[list[tuple[int, int]]] = [[] for _ in everything]
    # Each entry is a run of neighbours in alphabetical order, and the shared beginning that they all have already.
    runs = [(0, len(alphabetical), 0)] if everything else []
    while runs:
        first, last, floor = runs.pop()
        members = alphabetical[first:last]
        longest = max(len(everything[index]) for index in members)
        for index in members:
            sort_keys[index].append((-longest, first))
        if len(members) == 1:
            continue
        fork = min(common[first : last - 1])
        # The last token of a prompt is always computed: its output is what comes next.
        depth = min(fork, *(len(everything[index]) - 1 for index in members))
        if depth - floor >= _LEAST_TOKENS and (len(members) - 1) * (depth - floor) >= _LEAST_SAVED:
            for index in members:
                shared[index].append(depth)
            floor = depth
        borders = [at + 1 for at in range(first, last - 1) if common[at] == fork]
        runs += [(start, end, floor) for start, end in pairwise([first, *borders, last])]
    count = len(prompts)
    return Arrangement(sorted(range(count), key=lambda index: sort_keys[index]), shared[:count])


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many tokens two prompts share at their beginning."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
