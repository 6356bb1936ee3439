"""A check, before training starts, that a model computes on token trees what it computes on separate sequences."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from derta.errors import InputError
from derta.method.attention import FLEX_BLOCK
from derta.method.tree import Term, TokenTree, collate, context

_PROMPT, _REJECTED, _RESPONSE = 4, 12, 6


def verify_objective(model: PreTrainedModel) -> None:
    """Compare one small batch of trees with the model's own forward pass on each sequence that it stands for.

    An architecture whose attention, positions or output head are not expressed exactly would train on something else
    without a word. Weights that are sharded or not loaded yet can't be run here and are left unchecked. RTO targets
    share their context with the branches and may stand for a set of tokens: they are not compared.

    Args:
        model: The unwrapped causal language model, with the objective installed.

    Raises:
        InputError: The two disagree.
    """
    parameters = list(model.parameters())
    if any(p.is_meta or isinstance(p, DTensor) or hasattr(p, "ds_id") for p in parameters):
        return
    batch = _small_batch(model.config.get_text_config().vocab_size)
    batch = {name: value.to(model.device) for name, value in batch.items()}
    was_training = model.training
    model.eval()
    with torch.no_grad():
        got = float(model(**batch)["nll"][: Term.SAFE].sum())
    with torch.no_grad(), _attending_plainly(model):
        expected = 0.0
        for row, index in ((batch["terms"] == Term.HELPFUL) | (batch["terms"] == Term.SAFE)).nonzero().tolist():
            sequence = batch["input_ids"][row, context(batch, row, index)]
            logits = model(input_ids=sequence[None]).logits[0, -1].float()
            expected -= float(logits.log_softmax(-1)[batch["targets"][row, index]])
    model.train(was_training)
    tolerance = 1e-3 if model.dtype == torch.float32 else 5e-2
    if not abs(got - expected) <= tolerance * max(abs(expected), 1.0):
        raise InputError(
            f"model: {model.config.model_type} does not compute token trees exactly (loss {got:.4f}, separate "
            f"sequences {expected:.4f}); this architecture is not supported"
        )


@contextmanager
def _attending_plainly(model: PreTrainedModel) -> Iterator[None]:
    """Set FlexAttention aside: its kernels are compiled anew for short sequences, and not all of them exist."""
    used = model.config._attn_implementation
    if used != "flex_attention":
        yield
        return
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(used)


def _small_batch(vocabulary: int) -> dict[str, torch.Tensor]:
    """Make a batch with both terms of Eq. 2 and a helpful example, of random tokens."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(vocabulary, (_PROMPT + _REJECTED + _RESPONSE,), generator=generator).tolist()
    prompt, rejected, response = tokens[:_PROMPT], tokens[_PROMPT:-_RESPONSE], tokens[-_RESPONSE:]
    tree = TokenTree.trunk(prompt, rejected)
    tree.add_rto(range(_PROMPT - 1, len(tree)), [response[0]] * (_REJECTED + 1))
    tree.add_branch(_PROMPT, response)
    tree.add_branch(_PROMPT + _REJECTED // 2, response)
    trees = [tree, TokenTree.response(prompt, response, Term.HELPFUL)]
    return collate(trees, row_length=len(tree) + 12, pad_to_multiple_of=FLEX_BLOCK)
