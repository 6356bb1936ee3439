"""How the sums of a batch become a loss, which models are checked before training, and what attends densely."""

import pytest
import torch

from derta.errors import InputError
from derta.method.attention import is_dense
from derta.method.objective import TermSums, combine, install_objective
from derta.method.verification import verify_objective
from derta.names import SDPA_BY_TREE
from tests.method.models import tiny

NLL, COUNTS = torch.tensor([6.0, 8.0, 30.0]), torch.tensor([3.0, 2.0, 10.0])


def sums(nll: torch.Tensor = NLL) -> TermSums:
    return TermSums(nll, torch.zeros(3), COUNTS)


def test_the_pooled_loss_divides_by_all_targets_and_the_other_by_each_terms() -> None:
    assert combine(sums(), COUNTS).item() == pytest.approx(44 / 15)
    assert combine(sums(), COUNTS, rto_weight=0.5).item() == pytest.approx((6 + 8 + 15) / 15)
    assert combine(sums(), COUNTS, normalization="per-term").item() == pytest.approx(6 / 3 + 8 / 2 + 30 / 10)
    assert combine(sums(), COUNTS, 0.5, "per-term").item() == pytest.approx(6 / 3 + 8 / 2 + 15 / 10)


def test_a_part_of_a_step_is_divided_by_the_counts_of_the_whole() -> None:
    assert combine(sums(), 2 * COUNTS).item() == pytest.approx(44 / 30)


def test_without_targets_the_loss_is_zero_and_finite() -> None:
    nothing = TermSums(torch.zeros(3), torch.zeros(3), torch.zeros(3))
    assert combine(nothing, torch.zeros(3)).item() == 0
    assert combine(nothing, torch.zeros(3), normalization="per-term").item() == 0


@pytest.mark.parametrize(
    ("implementation", "device", "dense"),
    [
        ("sdpa", "cuda", True),
        ("sdpa", "cpu", True),
        ("eager", "cpu", True),
        ("flex_attention", "cuda", False),
        (SDPA_BY_TREE, "cpu", False),
        (SDPA_BY_TREE, "cuda", True),
    ],
)
def test_what_sets_every_token_against_every_other(implementation: str, device: str, dense: bool) -> None:
    model = tiny()
    model.config._attn_implementation = implementation
    assert is_dense(model, device) is dense


def test_a_model_that_computes_something_else_on_trees_is_refused() -> None:
    model = tiny()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # New weights attend to everything alike, and place hardly matters.
            parameter.mul_(10 if "norm" not in name else 1)
    install_objective(model, [5])
    verify_objective(model)
    decoder = model.get_decoder()
    stock = decoder.forward

    def positions_lost(*args: object, **kwargs: object) -> object:
        return stock(*args, **{**kwargs, "position_ids": None})

    decoder.forward = positions_lost
    with pytest.raises(InputError, match="llama does not compute token trees exactly"):
        verify_objective(model)


def test_weights_that_lie_elsewhere_are_not_run() -> None:
    with torch.device("meta"):
        model = tiny()
    install_objective(model, [5])
    verify_objective(model)
