"""Mixtures: several data sets in given proportions, in an order that the seed decides."""

import math
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

from derta.data.arrow import canonical
from derta.data.targets import check_targets
from derta.errors import InputError

if TYPE_CHECKING:
    from datasets import Dataset


def mix(
    datasets: "Sequence[Dataset]",
    *,
    ratios: Sequence[float] | None = None,
    seed: int = 0,
    max_examples: int | None = None,
) -> "Dataset":
    """Mix data sets of canonical columns and shuffle them.

    Args:
        datasets: Come from `load_triples`, or have rows in TRL's forms.
        ratios: Give relative numbers of examples, one for each data set: as many as the scarcest allows, none of
            them twice. By default everything.
        seed: Seeds which examples are drawn, and their order.
        max_examples: Bounds the mixture.

    Raises:
        InputError: The ratios don't fit the data sets, or leave nothing of one that should have a share; or a text that
            is `rejected` in one row would be learnt in another.
    """
    import numpy as np
    from datasets import concatenate_datasets

    if not datasets:
        raise InputError("data: nothing to mix; name at least one source")
    if max_examples is not None and max_examples < 1:
        raise InputError(f"max_examples: must be at least 1, not {max_examples}")
    rows = [canonical(dataset, f"source {number}") for number, dataset in enumerate(datasets, start=1)]
    # Before any row is left out by its ratio: what is harmful there isn't learnt from another source.
    check_targets(rows)
    sizes = [len(dataset) for dataset in datasets]
    counts = sizes if ratios is None else _counts(sizes, ratios, max_examples)
    draw = random.Random(seed)
    chosen: list[int] = []
    begin = 0
    for size, count in zip(sizes, counts, strict=True):
        chosen += range(begin, begin + size) if count == size else (begin + i for i in draw.sample(range(size), count))
        begin += size
    draw.shuffle(chosen)
    # `datasets` hashes what it selects, a list item by item.
    return concatenate_datasets(rows).select(np.array(chosen[:max_examples]))


def _counts(sizes: Sequence[int], ratios: Sequence[float], max_examples: int | None) -> list[int]:
    """Return how many examples each source gives."""
    if len(ratios) != len(sizes):
        raise InputError(f"ratios: {len(ratios)} given for {len(sizes)} sources; give one for each")
    for ratio in ratios:
        if not math.isfinite(ratio) or ratio < 0:
            raise InputError(f"ratios: {ratio} isn't a number of examples; give numbers of 0 or more")
    if not sum(ratios):
        raise InputError("ratios: all are 0; give one source at least a share")
    scale = min(size / ratio for size, ratio in zip(sizes, ratios, strict=True) if ratio)
    if max_examples is not None:
        scale = min(scale, max_examples / sum(ratios))
    counts = [min(size, math.floor(ratio * scale + 1e-6)) for size, ratio in zip(sizes, ratios, strict=True)]
    for index, (ratio, count) in enumerate(zip(ratios, counts, strict=True)):
        if ratio and not count:
            raise InputError(
                f"ratios: {ratio} leaves no example of source {index + 1} (of {sizes[index]}); "
                f"give it a larger ratio or more data"
            )
    return counts
