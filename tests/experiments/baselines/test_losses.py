"""Losses of baselines against their formulas written out in plain Python: value, and where the gradient points."""

import math

import pytest
import torch

from experiments.baselines.circuit_breakers import rerouting_loss, retain_loss
from experiments.baselines.constrained_sft import betas, constrained_loss
from experiments.baselines.door import unlearning_loss
from experiments.baselines.r2d2 import away_loss
from experiments.baselines.w_door import negative_loss, token_weights


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


@pytest.mark.parametrize("ratio", [-3.0, 0.0, 2.0])
@pytest.mark.parametrize("beta", [0.1, 0.5, 2.0])
def test_the_constrained_loss_pulls_a_token_up_and_less_the_likelier_it_is(ratio: float, beta: float) -> None:
    value = torch.tensor(ratio, requires_grad=True)
    loss = constrained_loss(value, torch.tensor(beta))
    assert loss.item() == pytest.approx(-2 / beta * math.log(sigmoid(beta * ratio)), rel=1e-5)
    loss.backward()
    # As plain fine-tuning where nothing has moved, and fading from there.
    assert value.grad is not None
    assert value.grad.item() == pytest.approx(-2 * sigmoid(-beta * ratio), rel=1e-5)


def test_beta_goes_by_the_place_of_a_token_in_the_response() -> None:
    mask = torch.tensor([[False, False, *[True] * 7], [True] * 2 + [False] * 7])
    found = betas(mask, 0.5, 2.0, 0.1)
    assert found[mask].tolist() == pytest.approx([0.5, 2, 2, 2, 2, 0.1, 0.1, 0.5, 2])


def test_unlearning_pushes_a_harmful_response_down_and_stops_once_it_is_unlikely() -> None:
    ratio = torch.tensor([-20.0, 0.0, 4.0], requires_grad=True)
    loss = unlearning_loss(ratio, 0.5)
    assert loss.tolist() == pytest.approx([-4 * math.log(sigmoid(-0.5 * each)) for each in (-20, 0, 4)], rel=1e-4)
    loss.sum().backward()
    assert ratio.grad is not None
    gradient = ratio.grad.tolist()
    assert gradient[0] == pytest.approx(0, abs=1e-3)
    assert gradient[1] == pytest.approx(1)
    assert gradient[1] < gradient[2] < 2


def test_tokens_that_the_preferring_model_makes_likelier_weigh_more() -> None:
    weights = token_weights(torch.tensor([-5.0, 0.0, 5.0]), tau=5.0)
    assert weights.tolist() == pytest.approx([math.exp(-1), 1, math.e])
    assert token_weights(torch.tensor([5.0]), tau=-5.0).item() == pytest.approx(math.exp(-1))


def test_the_negative_term_without_reference_lowers_the_mean_log_probability() -> None:
    mean = torch.tensor(-0.7, requires_grad=True)
    loss = negative_loss(mean, 0.5, 1.0)
    assert loss.item() == pytest.approx(-4 * math.log(sigmoid(0.35 - 1)), rel=1e-5)
    loss.backward()
    assert mean.grad is not None
    assert mean.grad.item() > 0


def test_rerouting_turns_states_away_until_they_are_at_a_right_angle() -> None:
    original = torch.tensor([[[[1.0, 0.0], [0.0, 1.0], [9.0, 9.0]]]])
    hidden = torch.tensor([[[[1.0, 1.0], [0.0, -2.0], [9.0, 9.0]]]], requires_grad=True)
    mask = torch.tensor([[True, True, False]])
    loss = rerouting_loss(hidden, original, mask)
    assert loss.item() == pytest.approx((math.sqrt(0.5) + 0) / 2)
    loss.backward()
    assert hidden.grad is not None
    first, second, padding = hidden.grad[0, 0]
    assert first[0] > 0
    assert second.abs().max() == padding.abs().max() == 0


def test_retaining_measures_the_distance_over_layers_and_tokens() -> None:
    original = torch.zeros(2, 1, 2, 2)
    hidden = torch.tensor([[[[3.0, 4.0], [9.0, 9.0]]], [[[0.0, 1.0], [9.0, 9.0]]]])
    assert retain_loss(hidden, original, torch.tensor([[True, False]])).item() == pytest.approx((5 + 1) / 2)


def test_away_leaves_tokens_alone_that_are_unlikely_already() -> None:
    log_probs = torch.tensor([[math.log(0.5), -6.0, math.log(0.9)]], requires_grad=True)
    loss = away_loss(log_probs, torch.tensor([[True, True, False]]), floor=-5.0)
    assert loss.item() == pytest.approx(-math.log(0.5))
    loss.backward()
    assert log_probs.grad is not None
    assert log_probs.grad[0, 0] > 0
    assert log_probs.grad[0, 1:].tolist() == [0, 0]


def test_away_is_finite_for_a_certain_token_and_zero_without_any() -> None:
    certain = torch.zeros(1, 1)
    assert math.isfinite(away_loss(certain, torch.ones(1, 1, dtype=torch.bool), -5.0).item())
    assert away_loss(certain, torch.zeros(1, 1, dtype=torch.bool), -5.0).item() == 0
