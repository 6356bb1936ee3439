"""Data sets of token trees: tokenised once, drawn afresh each epoch, in an order that any number of ranks share."""

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from datasets import Dataset

from derta.data.encoding import EncodedExample, Encoder, OverlongError
from derta.data.triples import as_example
from derta.errors import InputError
from derta.training.builder import TreeBuilder
from derta.training.tree import TokenTree

logger = logging.getLogger(__name__)


class TreeDataset(torch.utils.data.Dataset[TokenTree | None]):
    """Encoded examples that become trees on access, by (epoch, index); index `None` is padding of the last batch."""

    def __init__(self, encoded: Dataset, builder: TreeBuilder) -> None:
        self.encoded = encoded
        self.builder = builder

    def __len__(self) -> int:
        return len(self.encoded)

    def __getitem__(self, key: tuple[int, int | None]) -> TokenTree | None:
        epoch, index = key
        if index is None:
            return None
        return self.builder(EncodedExample(**self.encoded[index]), index, epoch)


class EpochSampler(torch.utils.data.Sampler[tuple[int, int | None]]):
    """Yields (epoch, index) in an order that depends on the seed and the epoch alone.

    The order is the same for any number of processes; it is filled up to a multiple of `multiple` with `None`, so that
    every process gets as many batches without any example seen twice.
    """

    def __init__(self, examples: int, *, multiple: int = 1, shuffle: bool = True, seed: int = 0) -> None:
        self.examples = examples
        self.multiple = multiple
        self.shuffle = shuffle
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.examples // self.multiple) * self.multiple

    def __iter__(self) -> Iterator[tuple[int, int | None]]:
        order: Sequence[int] = range(self.examples)
        if self.shuffle:
            order = np.random.default_rng([self.seed, self.epoch]).permutation(self.examples).tolist()
        yield from ((self.epoch, index) for index in order)
        yield from ((self.epoch, None) for _ in range(len(self) - self.examples))


def encode_dataset(
    dataset: Dataset, encoder: Encoder, *, name: str, drop_overlong: bool = False, num_proc: int | None = None
) -> Dataset:
    """Encode canonical or TRL-style rows; columns are the fields of `EncodedExample`.

    Logs how many examples were shortened or dropped.

    Raises:
        InputError: a row is not an example or does not fit, or none is left.
    """
    if len(dataset) == 0:
        raise InputError(f"{name}: no examples")
    if "completion" in dataset.column_names and "chosen" not in dataset.column_names:
        dataset = dataset.rename_column("completion", "chosen")

    def encode(row: dict[str, Any], index: int) -> dict[str, Any]:
        example = as_example(row, row.get("origin") or f"{name} row {index}")
        try:
            return vars(encoder(example))
        except OverlongError:
            if not drop_overlong:
                raise
            return vars(EncodedExample([], [], [], [], [], False, False, 0, example.origin))

    with PartialState().main_process_first():
        encoded = dataset.map(
            encode, with_indices=True, remove_columns=dataset.column_names, num_proc=num_proc, desc=f"Tokenising {name}"
        )
        fits = encoded.filter(lambda prompt: len(prompt) > 0, input_columns="prompt") if drop_overlong else encoded
    shortened = sum(count > 0 for count in fits["shortened"])
    if shortened:
        logger.warning(
            "%s: %d of %d examples shortened to max_length %d", name, shortened, len(fits), encoder.max_length
        )
    if len(fits) < len(encoded):
        logger.warning("%s: %d of %d examples dropped: too long", name, len(encoded) - len(fits), len(encoded))
    if len(fits) == 0:
        raise InputError(f"{name}: every example is too long for max_length {encoder.max_length}; raise it")
    return fits


def tree_dataset(encoded: Dataset, builder: TreeBuilder, name: str) -> TreeDataset:
    """Make a data set of trees.

    Raises:
        InputError: there are no triples for a method that needs them, or no example has a target under it.
    """
    if builder.method != "vanilla" and not any(encoded["rto"]) and not any(encoded["fixed_cut"]):
        raise InputError(f"{name}: method {builder.method!r} needs triples, and no example has a rejected response")
    trees = TreeDataset(encoded, builder)
    if all(trees[0, index] is None for index in range(len(trees))):
        raise InputError(f"{name}: method {builder.method!r} has no use for any of its {len(trees)} examples")
    return trees
