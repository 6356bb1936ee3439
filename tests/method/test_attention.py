"""Attention over trees: every implementation reads what the visible_ranges say, and nothing else."""

from collections.abc import Iterator
from itertools import product
from typing import Any, cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import flex_attention
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from derta.errors import InputError
from derta.method.attention import block_mask, dense_mask, sdpa_by_tree, within_window
from derta.method.objective import install_objective
from derta.method.tree import NO_TARGET, Term, TokenTree, collate, context
from tests.method.models import tiny
from tests.method.test_exactness import gradients, make_trainer
from tests.method.test_tree import trees


@given(st.lists(trees(), min_size=1, max_size=5), st.none() | st.integers(1, 60), st.none() | st.integers(1, 12))
@settings(max_examples=60, deadline=None)
def test_masks_are_what_the_visible_ranges_say(
    some: list[TokenTree], row_length: int | None, window: int | None
) -> None:
    batch = collate(some, row_length)
    positions = batch["position_ids"]
    expected = torch.zeros(*positions.shape, positions.shape[1], dtype=torch.bool)
    for row, index in torch.cartesian_prod(*map(torch.arange, positions.shape)).tolist():
        read = context(batch, row, index)
        if window is not None:
            read = read[positions[row, index] - positions[row, read] < window]
        expected[row, index, read] = True
    visible_ranges = batch["visible_ranges"] if window is None else within_window(batch["visible_ranges"], window)
    assert torch.equal(dense_mask(visible_ranges), expected)
    mask: Any = block_mask(visible_ranges)
    index = torch.arange(positions.shape[1])
    of_flex = [mask.mask_mod(row, 0, index[:, None], index) for row in range(len(positions))]
    assert torch.equal(torch.stack(of_flex), expected)


class Layer(torch.nn.Module):
    num_key_value_groups = 2
    is_causal = True


@given(st.lists(trees(), min_size=1, max_size=5), st.none() | st.integers(1, 60), st.none() | st.integers(1, 12))
@settings(max_examples=60, deadline=None)
def test_tree_by_tree_is_dense_attention(some: list[TokenTree], row_length: int | None, window: int | None) -> None:
    visible_ranges = collate(some, row_length)["visible_ranges"]
    visible_ranges = visible_ranges if window is None else within_window(visible_ranges, window)
    rows, width, _ = visible_ranges.shape
    generator = torch.Generator().manual_seed(0)
    states = [torch.randn(rows, heads, width, 8, generator=generator, requires_grad=True) for heads in (4, 2, 2)]
    towards = torch.randn(rows, width, 4, 8, generator=generator)
    results = []
    sides: list[tuple[Any, torch.Tensor]] = [
        (sdpa_attention_forward, dense_mask(visible_ranges)[:, None]),
        (sdpa_by_tree, visible_ranges[:, None]),
    ]
    for attend, mask in sides:
        output, _ = attend(Layer(), *states, mask, scaling=0.3)
        results.append((output, *torch.autograd.grad((output * towards).sum(), states)))
    for dense, by_tree in zip(*results, strict=True):
        torch.testing.assert_close(by_tree, dense, rtol=1e-5, atol=1e-5)


def test_a_tree_costs_nothing_for_what_else_is_in_its_row(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = []

    def spy(module: Any, query: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        lengths.append(query.shape[2])
        return sdpa_attention_forward(module, query, *args, **kwargs)

    monkeypatch.setattr("derta.method.attention.sdpa_attention_forward", spy)
    tree = TokenTree.trunk([1] * 5, [20] * 20)
    tree.add_branch(9, [30] * 6)
    plain = TokenTree.response([1] * 4, [30] * 10, Term.HELPFUL)
    visible_ranges = collate([tree, plain, plain, tree], row_length=64)["visible_ranges"]
    states = [torch.randn(*visible_ranges.shape[:1], heads, visible_ranges.shape[1], 8) for heads in (4, 2, 2)]
    query, key, value = states
    sdpa_by_tree(Layer(), query, key, value, visible_ranges[:, None])
    assert sorted(lengths) == [13, 13, 31, 31]


@pytest.fixture
def flex_on_cpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """FlexAttention as PyTorch's own uncompiled form, which differentiates on a CPU as well."""
    monkeypatch.setattr(flex_attention, "_validate_device", lambda *states: None)
    with torch.compiler.set_stance("force_eager"):
        yield


ARCHITECTURES = ["llama", "mistral-window", "qwen3-mixed-window", "gemma3-capped"]


@pytest.mark.usefixtures("flex_on_cpu")
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize(
    ("name", "implementation"),
    [*product(ARCHITECTURES, ["flex_attention", "sdpa"]), ("gemma2-capped", "flex_attention")],
)
def test_what_gpus_compute_is_what_a_cpu_computes(
    name: str, implementation: str, tokenizer: PreTrainedTokenizerFast, tmp_path: Any
) -> None:
    """`test_exactness.py` compares the latter with separate sequences."""
    batch = next(iter(make_trainer(tiny(name), tokenizer, tmp_path).get_train_dataloader()))
    results = []
    for used in (None, implementation):
        model = tiny(name)
        install_objective(model, [5])
        if used:
            model.set_attn_implementation(used)
        loss = model(**batch)["nll"].sum()
        loss.backward()
        results.append((loss.item(), gradients(model)))
    assert results[1][0] == pytest.approx(results[0][0], rel=1e-5)
    assert (results[1][1] - results[0][1]).norm() <= 1e-5 * results[0][1].norm()


def test_flex_attention_on_a_cpu_is_refused(tokenizer: PreTrainedTokenizerFast, tmp_path: Any) -> None:
    model = tiny()
    model.set_attn_implementation("flex_attention")
    with pytest.raises(InputError, match="flex_attention on GPUs only; use sdpa"):
        make_trainer(model, tokenizer, tmp_path)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("implementation", ["flex_attention", "sdpa"])
@pytest.mark.parametrize("name", ["llama", "mistral-window", "gemma3"])
def test_bfloat16_trees_on_a_gpu_equal_separate_sequences(name: str, implementation: str) -> None:
    model: PreTrainedModel = cast(Any, tiny(name, head_dim=16)).to(
        "cuda", torch.bfloat16
    )  # the least that FlexAttention takes
    model.set_attn_implementation(implementation)
    install_objective(model, [5])
    some = []
    for cut in (3, 40, 90):
        tree = TokenTree.trunk(list(range(10, 30)), list(range(100, 200)))
        tree.add_branch(20 + cut, list(range(30, 60)))
        some.append(tree)
    batch = {key: value.cuda() for key, value in collate(some, None, pad_to_multiple_of=128).items()}
    loss = model(**batch)["nll"].sum()
    loss.backward()
    packed = gradients(model)
    separate = torch.zeros((), device="cuda")
    model.set_attn_implementation("eager")
    for row, index in (batch["targets"] != NO_TARGET).nonzero().tolist():
        sequence = batch["input_ids"][row, context(batch, row, index).cuda()]
        logits = model(input_ids=sequence[None]).logits[0, -1].float()
        separate = separate - logits.log_softmax(-1)[batch["targets"][row, index]]
    separate.backward()
    assert loss.item() == pytest.approx(separate.item(), rel=1e-2)
    assert torch.nn.functional.cosine_similarity(packed.float(), gradients(model).float(), dim=0) > 0.995
