"""Sequences that baselines train on: a prompt and a response each, as tokens that equal derta's own."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from trl.trainer.utils import selective_log_softmax

from derta.method.tree import NO_TARGET
from derta.tokens.encoder import EncodedExample
from derta.tokens.refusal_tokens import WhiteSpace

Part = dict[str, torch.Tensor]
"""Sequences of one kind, padded on the right: `input_ids`, `attention_mask` and `targets` (−100: none), each (N, T).
`targets` stand where the tokens are, not shifted."""


@dataclass(frozen=True)
class TokenSequence:
    """One sequence of an example.

    Attributes:
        part: Names its kind, such as `helpful`, `safe` or `rejected`: the loss treats each in its own way.
        tokens: Holds prompt and response.
        begin: Counts the tokens before the first target.
    """

    part: str
    tokens: list[int]
    begin: int


Sequences = Callable[[EncodedExample, np.random.Generator], list[TokenSequence]]


def helpful(example: EncodedExample) -> TokenSequence:
    """Return a helpful example's response after its prompt."""
    return TokenSequence("helpful", example.prompt + example.chosen, len(example.prompt))


def safe(example: EncodedExample, white_space: WhiteSpace, prefix: int = 0) -> TokenSequence:
    """Return the safe response after the prompt and the first `prefix` tokens of the harmful one."""
    before = example.prompt + example.rejected[:prefix]
    needs_space = prefix > 0 and not white_space.ends(example.rejected[prefix - 1])
    return TokenSequence("safe", before + (example.chosen_after_text if needs_space else example.chosen), len(before))


def rejected(example: EncodedExample) -> TokenSequence:
    """Return the harmful response after the prompt: for a term that reads it or makes it less likely."""
    return TokenSequence("rejected", example.prompt + example.rejected, len(example.prompt))


def draw_prefix(draws: np.random.Generator, length: int, longest: int) -> int:
    """Draw how long a harmful prefix is: 0 for half of the draws, else U{1 … longest} tokens, `length` at most."""
    return 0 if draws.random() < 0.5 else min(int(draws.integers(1, longest + 1)), length)


class SequenceDataset(torch.utils.data.Dataset[list[TokenSequence]]):
    """Encoded examples that become sequences on access, by (epoch, index), with draws of their own."""

    def __init__(self, encoded: Dataset, sequences: Sequences, seed: int) -> None:
        self.encoded = encoded
        self.sequences = sequences
        self.seed = seed

    def __len__(self) -> int:
        return len(self.encoded)

    @property
    def lengths(self) -> np.ndarray:
        """How many tokens each example has."""
        return np.array([len(each["prompt"]) + len(each["chosen"]) + len(each["rejected"]) for each in self.encoded])

    def __getitem__(self, key: tuple[int, int]) -> list[TokenSequence]:
        epoch, index = key
        draws = np.random.default_rng([self.seed, epoch, index])
        return self.sequences(EncodedExample(**self.encoded[index]), draws)


def collate(examples: Iterable[Sequence[TokenSequence]], pad_token_id: int = 0) -> dict[str, Part]:
    """Pad the sequences of examples, each part on its own; a part that no example has is left out."""
    parts: dict[str, list[TokenSequence]] = {}
    for each in (sequence for example in examples for sequence in example):
        parts.setdefault(each.part, []).append(each)
    return {name: _pad(sequences, pad_token_id) for name, sequences in parts.items()}


def _pad(sequences: Sequence[TokenSequence], pad_token_id: int) -> Part:
    shape = len(sequences), max(len(each.tokens) for each in sequences)
    part = {
        "input_ids": torch.full(shape, pad_token_id),
        "attention_mask": torch.zeros(shape, dtype=torch.long),
        "targets": torch.full(shape, NO_TARGET),
    }
    for row, each in enumerate(sequences):
        length = len(each.tokens)
        part["input_ids"][row, :length] = torch.tensor(each.tokens)
        part["attention_mask"][row, :length] = 1
        part["targets"][row, each.begin : length] = torch.tensor(each.tokens[each.begin :])
    return part


def target_log_probs(model: Any, part: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return log P of every target, (N, T − 1) in float32; 0 where there is none."""
    output = model(input_ids=part["input_ids"], attention_mask=part["attention_mask"], use_cache=False)
    targets = part["targets"][:, 1:]
    log_probs = selective_log_softmax(output.logits[:, :-1].float(), targets.clamp(min=0))
    kept: torch.Tensor = torch.where(targets == NO_TARGET, 0.0, log_probs)
    return kept


def is_target(part: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Say which of the positions of `target_log_probs` have a target, (N, T − 1)."""
    return part["targets"][:, 1:] != NO_TARGET
