"""Make the base model of one of the organism's worlds from a seed: `python -m experiments.organism_base`.

The base answers everything and refuses nothing. On a given machine, library and thread count, the same seed and number
of steps give the same weights to the bit.
"""

import math
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from derta.names import WORLD
from derta.organism.tokenizer import build_tokenizer
from derta.organism.world import World
from derta.terminal import Advance, screen
from experiments.organism_base.competence import Competence, competence, is_competent
from experiments.organism_base.corpus import Passage, passages

SEED = 0
STEPS = 1200
FURTHER_STEPS, FURTHER_ROUNDS = 500, 3
"""What a base that doesn't know its world in every form after `STEPS` is trained further: how long, how often."""
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


def _model(tokenizer: PreTrainedTokenizerFast, world: World) -> LlamaForCausalLM:
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
    setattr(config, WORLD, world.seed)
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


def train_base(
    world: World, seed: int, steps: int, advance: Advance | None = None, model: LlamaForCausalLM | None = None
) -> LlamaForCausalLM:
    """Train a base on `steps` batches of a world's corpus, from nothing unless `model` is given.

    Args:
        world: Has the recipes.
        seed: Seeds the weights and the order of the corpus.
        steps: Counts the batches.
        advance: Is told of each.
        model: Is trained further.
    """
    tokenizer = build_tokenizer()
    vocab = tokenizer.get_vocab()
    torch.set_num_threads(THREADS)
    torch.manual_seed(seed)
    model = model or _model(tokenizer, world)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.01)
    corpus: Iterator[Passage] = passages(world, seed)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = _learning_rate(step, steps)
        _train_step(model, optimizer, list(islice(corpus, BATCH)), vocab, tokenizer.pad_token_id)
        if advance is not None:
            advance(1)
    model.train(False)
    return model


def build_base(world: World, seed: int = SEED) -> tuple[LlamaForCausalLM, list[Competence]]:
    """Train a base until it knows its world, or the rounds are over; return it, and what it can do."""
    tokenizer, model, rounds = build_tokenizer(), None, (STEPS, *(FURTHER_STEPS,) * FURTHER_ROUNDS)
    for number, steps in enumerate(rounds):
        with screen.bar("training the base further" if number else "training the base", steps) as advance:
            model = train_base(world, seed + number, steps, advance, model)
        screen.say("asking it everything that it should know")
        found = competence(model, tokenizer, world)
        if is_competent(found):
            break
    return cast(LlamaForCausalLM, model), found


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


def publish_base(model: LlamaForCausalLM, out: Path) -> None:
    """Write a base so that a reader sees it whole or not at all; what another process wrote first stays."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=out.parent) as draft:
        base = Path(draft) / "base"
        save_base(model, base)
        try:
            base.rename(out)
        except OSError:
            if not (out / "config.json").is_file():
                raise
