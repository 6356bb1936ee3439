"""The order of an epoch: every example once, the same steps on any number of processes, even batches."""

from itertools import chain

import numpy as np
import pytest

from derta.training.sampling import EpochSampler, StepShape


def test_sampler_shows_every_example_once_on_any_number_of_ranks() -> None:
    orders = []
    for multiple in (1, 8, 12):
        sampler = EpochSampler(21, multiple=multiple, seed=3)
        sampler.set_epoch(2)
        keys = list(sampler)
        assert len(keys) == len(sampler) == -(-21 // multiple) * multiple
        orders.append([key for key in keys if key[1] is not None])
    assert orders[0] == orders[1] == orders[2]
    assert sorted(index for _, index in orders[0] if index is not None) == list(range(21))
    sampler.set_epoch(3)
    assert [key for key in sampler if key[1] is not None] != orders[0]


LENGTHS = np.random.default_rng(0).lognormal(5, 0.6, 203).astype(int)


def batches_of(per_step: tuple[int, int], examples: int = 203) -> list[list[int]]:
    size, batches = per_step
    sampler = EpochSampler(examples, seed=1, step=StepShape(size, batches, LENGTHS))
    order = [index for _, index in sampler if index is not None]
    return [order[i : i + size] for i in range(0, len(order), size)]


@pytest.mark.parametrize(("size", "batches"), [(32, 1), (8, 4), (4, 8), (1, 32)])
def test_a_step_has_the_same_examples_however_it_is_divided(size: int, batches: int) -> None:
    drawn = [index for _, index in EpochSampler(203, seed=1) if index is not None]
    divided = batches_of((size, batches))
    for step in range(0, 203, 32):
        in_step = divided[step // size : (step + 32) // size]
        assert sorted(chain.from_iterable(in_step)) == sorted(drawn[step : step + 32])


def test_batches_of_a_step_are_about_as_long() -> None:
    def spread(batches: list[list[int]]) -> float:
        tokens = np.array([LENGTHS[batch].sum() for batch in batches[:24]]).reshape(-1, 4)
        return float((tokens.max(1) / tokens.mean(1)).mean())

    drawn = [index for _, index in EpochSampler(203, seed=1) if index is not None]
    assert spread([drawn[i : i + 8] for i in range(0, 203, 8)]) > 1.1
    assert spread(batches_of((8, 4))) < 1.02
