"""Sequences of baselines: the tokens of derta, targets where they belong, draws that repeat."""

from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerFast

from derta.data.triples import as_example
from derta.tokens.encoder import EncodedExample, Encoder
from derta.tokens.refusal_tokens import WhiteSpace
from experiments.baselines.sequences import collate, draw_prefix, helpful, is_target, rejected, safe, target_log_probs
from tests.method.models import tiny
from tests.method.test_exactness import make_trainer

TRIPLE = {"prompt": "how to open the vault?", "chosen": "Sorry, I won't.", "rejected": "take a key. turn it."}


def encoded(tokenizer: PreTrainedTokenizerFast, row: dict[str, str] = TRIPLE) -> EncodedExample:
    return Encoder(tokenizer, 128)(as_example(row, "row"))


def test_a_safe_response_after_a_prefix_has_the_tokens_of_a_tree_s_branch(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    trainer = make_trainer(tiny(), tokenizer, tmp_path, method="harmful-prefix", cuts_per_triple=100)
    example = encoded(tokenizer)
    tree = trainer.train_dataset.builder(example, 0, 0)
    batch = collate([[safe(example, WhiteSpace(tokenizer), cut)] for cut in range(len(example.rejected) + 1)])
    expected = [token for token in tree.targets if token >= 0]
    assert batch["safe"]["targets"][is_target_row(batch["safe"]["targets"])].tolist() == expected


def is_target_row(targets: torch.Tensor) -> torch.Tensor:
    return targets >= 0


def test_log_probabilities_are_the_model_s_own(tokenizer: PreTrainedTokenizerFast) -> None:
    model, example = tiny().eval(), encoded(tokenizer)
    batch = collate([[rejected(example)], [helpful(encoded(tokenizer, {"prompt": "hi", "chosen": "walk in."}))]])
    assert batch.keys() == {"rejected", "helpful"}
    found = target_log_probs(model, batch["rejected"])[is_target(batch["rejected"])]
    ids = torch.tensor([example.prompt + example.rejected])
    logits = model(input_ids=ids).logits[0].log_softmax(-1)
    first = len(example.prompt)
    expected = [float(logits[first - 1 + i, token]) for i, token in enumerate(example.rejected)]
    torch.testing.assert_close(found.detach(), torch.tensor(expected), rtol=1e-4, atol=1e-4)


def test_half_of_the_prefixes_are_empty_and_none_is_too_long() -> None:
    draws = np.random.default_rng(0)
    lengths = [draw_prefix(draws, 30, 100) for _ in range(2000)]
    assert 0.45 < lengths.count(0) / len(lengths) < 0.55
    assert max(lengths) == 30
    assert max(draw_prefix(draws, 200, 100) for _ in range(2000)) == 100


def test_collated_parts_hold_every_sequence(tokenizer: PreTrainedTokenizerFast) -> None:
    example = encoded(tokenizer)
    data = Dataset.from_list([TRIPLE])
    assert len(data) == 1
    batch = collate([[rejected(example), safe(example, WhiteSpace(tokenizer))]] * 3, pad_token_id=2)
    assert batch["safe"]["input_ids"].shape[0] == batch["rejected"]["input_ids"].shape[0] == 3
    assert (batch["safe"]["attention_mask"].sum(1) == len(example.prompt + example.chosen)).all()
