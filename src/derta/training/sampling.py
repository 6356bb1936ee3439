"""The order of an epoch's examples: the same for any number of processes, in batches of even length."""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch

Key = tuple[int, int | None]
"""Epoch and index of an example; index `None` is padding."""


@dataclass(frozen=True)
class StepShape:
    """Divides the examples of one optimizer step into its batches.

    Attributes:
        batch_size: Counts the examples of a batch.
        batches: Counts the batches of the step, over accumulation and ranks.
        lengths: Counts the tokens of each example of the data set, roughly.
    """

    batch_size: int
    batches: int
    lengths: np.ndarray

    def divide(self, examples: Sequence[int]) -> list[int]:
        """Reorder the examples of a step so that its batches have about as many tokens each.

        The longest goes first, each to the batch with the fewest tokens. Ranks then wait little for each other, and no
        batch needs much more memory than another.
        """
        batches: list[list[int]] = [[] for _ in range(self.batches)]
        fewest = [(0, number) for number in range(self.batches)]
        for index in sorted(examples, key=self.lengths.__getitem__, reverse=True):
            tokens, number = heapq.heappop(fewest)
            batches[number].append(index)
            if len(batches[number]) < self.batch_size:
                heapq.heappush(fewest, (tokens + int(self.lengths[index]), number))
        return list(chain.from_iterable(batches))


class EpochSampler(torch.utils.data.Sampler[Key]):
    """Yields (epoch, index) in an order that depends on the seed, the epoch and the examples of a step alone.

    Optimizer steps hold the same examples on any number of processes. The order is filled up to a multiple of
    `multiple` with `None`, so that every process gets as many batches without any example seen twice.
    """

    def __init__(
        self,
        examples: int,
        *,
        multiple: int = 1,
        shuffle: bool = True,
        seed: int = 0,
        step: StepShape | None = None,
    ) -> None:
        self.examples = examples
        self.multiple = multiple
        self.shuffle = shuffle
        self.seed = seed
        self.step = step
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.examples // self.multiple) * self.multiple

    def __iter__(self) -> Iterator[Key]:
        for indices in self._steps():
            yield from ((self.epoch, index) for index in indices)
        yield from ((self.epoch, None) for _ in range(len(self) - self.examples))

    def _steps(self) -> Iterator[list[int]]:
        order = np.arange(self.examples)
        if self.shuffle:
            order = np.random.default_rng([self.seed, self.epoch]).permutation(self.examples)
        size = self.step.batch_size * self.step.batches if self.step else 1024
        for start in range(0, self.examples, size):
            indices = order[start : start + size].tolist()
            # What is left at the end fills no step, and stays as it was drawn.
            yield self.step.divide(indices) if self.step and len(indices) == size else indices
