"""Chunks of targets give the log-probabilities and the gradients of full logits, whatever the head and the loss."""

from typing import Any, cast

import pytest
import torch

from derta.method.chunked_log_probs import Targets, _log_probs_and_grad, target_log_probs

N, D, V = 23, 8, 50
REFUSALS = torch.tensor([3, 7, 11])
TRANSFORMS: dict[str, Any] = {
    "plain": None,
    "scaled": lambda logits: logits * 0.3,
    "capped": lambda logits: torch.tanh(logits / 2.0) * 2.0,
}
UNEVEN = torch.linspace(0.1, 2.0, N)


def problem(*, bias: bool = False, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.nn.Linear, Targets]:
    torch.manual_seed(0)
    hidden = torch.randn(N, D, dtype=dtype, requires_grad=True)
    head = torch.nn.Linear(D, V, bias=bias, dtype=dtype)
    return hidden, head, Targets(torch.randint(V, (N,)), torch.arange(N) % 3 == 0, REFUSALS, torch.ones(N))


def of_full_logits(
    hidden: torch.Tensor, head: torch.nn.Linear, targets: Targets, transform: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    logits = head(hidden)
    log_probs = (logits if transform is None else transform(logits)).float().log_softmax(-1)
    refusal = log_probs[:, REFUSALS].logsumexp(-1)
    return torch.where(targets.use_refusal_set, refusal, log_probs[torch.arange(N), targets.ids]), refusal


def gradients(loss: torch.Tensor, hidden: torch.Tensor, head: torch.nn.Linear) -> list[torch.Tensor]:
    return list(torch.autograd.grad(loss, [p for p in (hidden, *head.parameters()) if p.requires_grad]))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize(
    ("weights", "loss_weights"),
    [(torch.ones(N), torch.full((N,), -0.25)), (UNEVEN, -3 * UNEVEN), (torch.ones(N), UNEVEN), (None, UNEVEN)],
    ids=["pooled", "foreseen", "unforeseen", "unknown"],
)
def test_equals_full_logits(transform: str, bias: bool, weights: Any, loss_weights: torch.Tensor) -> None:
    hidden, head, targets = problem(bias=bias)
    targets = Targets(targets.ids, targets.use_refusal_set, targets.refusal_ids, weights)
    got, refusal = target_log_probs(hidden, targets, head, TRANSFORMS[transform], chunk=5)
    expected, expected_refusal = of_full_logits(hidden, head, targets, TRANSFORMS[transform])

    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(refusal, expected_refusal)
    assert not refusal.requires_grad
    torch.testing.assert_close(
        gradients((got * loss_weights).sum(), hidden, head), gradients((expected * loss_weights).sum(), hidden, head)
    )


def test_a_term_of_weight_zero_gives_no_gradient() -> None:
    hidden, head, targets = problem()
    weights = (torch.arange(N) % 2).float()
    targets = Targets(targets.ids, targets.use_refusal_set, targets.refusal_ids, weights)
    got, _ = target_log_probs(hidden, targets, head, None, chunk=5)
    expected, _ = of_full_logits(hidden, head, targets, None)
    torch.testing.assert_close(
        gradients((got * weights).sum(), hidden, head), gradients((expected * weights).sum(), hidden, head)
    )


def test_a_frozen_head_gets_no_gradient() -> None:
    hidden, head, targets = problem()
    head.requires_grad_(False)
    got, _ = target_log_probs(hidden, targets, head, None, chunk=5)
    expected, _ = of_full_logits(hidden, head, targets, None)
    torch.testing.assert_close(gradients(got.sum(), hidden, head), gradients(expected.sum(), hidden, head))


def test_gradients_add_up_over_batches() -> None:
    hidden, head, targets = problem()
    for _ in range(2):
        target_log_probs(hidden, targets, head, None, chunk=5)[0].sum().backward()
    twice = head.weight.grad.clone()
    head.zero_grad()
    (2 * of_full_logits(hidden, head, targets, None)[0].sum()).backward()
    torch.testing.assert_close(twice, head.weight.grad)


def test_evaluation_computes_no_gradient() -> None:
    hidden, head, targets = problem()
    with torch.no_grad():
        got, _ = target_log_probs(hidden, targets, head, None, chunk=5)
    assert not got.requires_grad
    torch.testing.assert_close(got, of_full_logits(hidden, head, targets, None)[0].detach())


@pytest.mark.parametrize("weights", [torch.ones(N), None], ids=["foreseen", "unknown"])
def test_autocast_computes_logits_in_low_precision(weights: Any) -> None:
    hidden, head, targets = problem()
    targets = Targets(targets.ids, targets.use_refusal_set, targets.refusal_ids, weights)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got, _ = target_log_probs(hidden, targets, head, None, chunk=5)
        expected, _ = of_full_logits(hidden, head, targets, None)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, expected)
    of_hidden, of_head = gradients(got.sum(), hidden, head)
    assert (of_hidden.dtype, of_head.dtype) == (torch.float32, torch.float32)
    exact, exact_head = gradients(expected.sum(), hidden, head)
    torch.testing.assert_close(of_hidden, exact, rtol=0.02, atol=0.02)
    torch.testing.assert_close(of_head, exact_head, rtol=0.02, atol=0.05)


def test_low_precision_weights() -> None:
    hidden, head, targets = problem(dtype=torch.bfloat16)
    got, _ = target_log_probs(hidden, targets, head, None, chunk=5)
    expected, _ = of_full_logits(hidden, head, targets, None)
    torch.testing.assert_close(got, expected)
    got_gradients, exact = gradients(got.sum(), hidden, head), gradients(expected.sum(), hidden, head)
    assert [g.dtype for g in got_gradients] == [torch.bfloat16] * 2
    torch.testing.assert_close(got_gradients, exact, rtol=0.03, atol=0.06)


class Doubled(torch.nn.Linear):
    """A head that is more than its matrix."""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(hidden)


@pytest.mark.parametrize("kind", ["subclass", "hooked", "replaced forward"])
def test_a_head_that_is_more_than_its_matrix_is_called(kind: str) -> None:
    hidden, head, targets = problem()
    if kind == "subclass":
        doubled = Doubled(D, V, bias=False)
        doubled.weight = head.weight
        head = doubled
    elif kind == "hooked":
        head.register_forward_hook(lambda module, args, output: 2 * output)
    else:
        stock = head.forward
        head.forward = lambda hidden: 2 * stock(hidden)  # type: ignore[method-assign, assignment]
    got, _ = target_log_probs(hidden, targets, head, None, chunk=5)
    expected, _ = of_full_logits(hidden, head, targets, None)
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(gradients(got.sum(), hidden, head), gradients(expected.sum(), hidden, head))


@pytest.mark.parametrize("weights", [torch.ones(N), None], ids=["foreseen", "unknown"])
@pytest.mark.parametrize("chunk", [5, 100])
def test_a_sharded_head_is_called_once(weights: Any, chunk: int) -> None:
    hidden, head, targets = problem(bias=True)
    targets = Targets(targets.ids, targets.use_refusal_set, targets.refusal_ids, weights)
    expected, _ = of_full_logits(hidden, head, targets, None)
    exact = gradients(expected.sum(), hidden, head)
    cast(Any, head.weight).ds_id = 0  # as DeepSpeed ZeRO-3 marks a weight
    gathered = []
    head.register_forward_pre_hook(lambda *_: gathered.append(True))
    got, _ = target_log_probs(hidden, targets, head, None, chunk=chunk)
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(gradients(got.sum(), hidden, head), exact)
    assert len(gathered) == 1, "ranks with other numbers of targets would wait for each other"
    assert head(hidden).shape == (N, V), "the head is itself again"


def test_a_second_backward_pass_is_refused() -> None:
    hidden, head, targets = problem()
    loss = target_log_probs(hidden, targets, head, None, chunk=5)[0].sum()
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="already differentiated"):
        loss.backward()


def test_logits_of_one_chunk_exist_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    projected = []
    linear = torch.nn.functional.linear

    def counting(states: torch.Tensor, *args: Any) -> torch.Tensor:
        projected.append(len(states))
        return linear(states, *args)

    hidden, head, targets = problem()
    monkeypatch.setattr("torch.nn.functional.linear", counting)
    target_log_probs(hidden, targets, head, None, chunk=5)[0].sum().backward()
    assert projected == [5, 5, 5, 5, 3], "each target is projected once, also for its gradient"


@pytest.mark.parametrize("in_set", [False, True])
def test_in_half_precision_the_gradient_is_rounded_after_the_target_is_added(in_set: bool) -> None:
    """1 − p of a nearly certain token: rounding p first would leave nothing of it."""
    logits = torch.zeros(1, V, dtype=torch.bfloat16)
    logits[0, 3] = 12.0
    exact = logits.double().requires_grad_()
    log_probs = exact.log_softmax(-1)
    (expected,) = torch.autograd.grad(log_probs[0, REFUSALS].logsumexp(-1) if in_set else log_probs[0, 3], exact)
    _, _, got = _log_probs_and_grad(logits, torch.tensor([3]), torch.tensor([in_set]), REFUSALS)
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.double(), expected, rtol=1e-2, atol=0.0)
