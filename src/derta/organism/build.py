"""Make the organism's base model from its seed: `derta organism build --out D`.

The base answers everything and refuses nothing. On a given machine, library and thread count, the same seed and number
of steps give the same weights to the bit.
"""

import math
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from derta.organism.corpus import Passage, passages
from derta.organism.tokenizer import build_tokenizer
from derta.terminal import Advance

SEED = 0
STEPS = 1200
BATCH = 32
"""Passages per step."""
CHUNKS = 4
"""Passages of similar length go through the model together: less padding."""
LEARNING_RATE = 3e-3
WARM_UP = 100
DECAY = 0.35
"""Share of the steps on which the learning rate falls."""
THREADS = 1
"""As the packaged weights were made. Another number adds in another order: other bits."""
IGNORED = -100


def _model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def _learning_rate(step: int, steps: int) -> float:
    """Linear warm-up, a plateau, and a linear decay to nothing."""
    return LEARNING_RATE * min(1.0, (step + 1) / WARM_UP, (steps - step) / (DECAY * steps))


def _collate(batch: list[Passage], vocab: dict[str, int], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return token ids and labels, padded on the right: no attention mask is needed under a causal one."""
    width = max(len(passage.words) for passage in batch)
    ids = torch.full((len(batch), width), pad)
    labels = torch.full((len(batch), width), IGNORED)
    for row, passage in enumerate(batch):
        tokens = torch.tensor([vocab[word] for word in passage.words])
        ids[row, : len(tokens)] = tokens
        labels[row, : len(tokens)] = torch.where(torch.tensor(passage.learned), tokens, IGNORED)
    return ids, labels


def _train_step(
    model: LlamaForCausalLM, optimizer: torch.optim.Optimizer, batch: list[Passage], vocab: dict[str, int], pad: int
) -> None:
    batch = sorted(batch, key=lambda passage: len(passage.words))
    targets = sum(sum(passage.learned) for passage in batch)
    size = math.ceil(len(batch) / CHUNKS)
    for start in range(0, len(batch), size):
        ids, labels = _collate(batch[start : start + size], vocab, pad)
        hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
        shifted = labels[:, 1:]
        learned = shifted != IGNORED
        logits = model.lm_head(hidden[learned])
        loss = torch.nn.functional.cross_entropy(logits, shifted[learned], reduction="sum") / targets
        loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()


def train_base(seed: int, steps: int, advance: Advance | None = None) -> LlamaForCausalLM:
    """Train the base from nothing on `steps` batches of the corpus; `advance` is told of each."""
    tokenizer = build_tokenizer()
    vocab = tokenizer.get_vocab()
    torch.set_num_threads(THREADS)
    torch.manual_seed(seed)
    model = _model(tokenizer)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.01)
    corpus: Iterator[Passage] = passages(seed)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = _learning_rate(step, steps)
        _train_step(model, optimizer, list(islice(corpus, BATCH)), vocab, tokenizer.pad_token_id)
        if advance is not None:
            advance(1)
    model.train(False)
    return model


def save_base(model: LlamaForCausalLM, out: Path) -> None:
    """Write the base, its tokenizer and its generation defaults (greedy) as a model directory."""
    tokenizer = build_tokenizer()
    model.generation_config = GenerationConfig(
        do_sample=False,
        max_new_tokens=96,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
