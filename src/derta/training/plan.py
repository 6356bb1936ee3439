"""`derta train --dry-run`: what a run would train on, in how many steps and how much memory, without its weights."""

import math
from collections import Counter, defaultdict
from dataclasses import fields
from typing import cast

import numpy as np
import torch
from accelerate import init_empty_weights
from datasets import Dataset
from peft import get_peft_model
from rich.table import Table
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedTokenizerBase
from trl import ModelConfig, get_peft_config

from derta.errors import InputError, first_line
from derta.generation.loading import load_config, unreadable
from derta.method.attention import TreeAttention, is_dense
from derta.method.tree import Term, collate
from derta.terminal import screen
from derta.training.config import DeRTaConfig
from derta.training.dataset import TreeDataset, encode_dataset, encoder_and_builder, tree_dataset, values_of
from derta.training.encoded_contexts import encoded_contexts
from derta.training.memory import Memory, estimate_memory
from derta.training.options import TrainOptions
from derta.training.sampling import EpochSampler

_SAMPLE = 2000


# Of the graphics cards that large models are trained on.
_DEVICE_BYTES = 80e9
_SHARDS = 8


def print_plan(options: TrainOptions, train_data: Dataset, tokenizer: PreTrainedTokenizerBase, model: str) -> None:
    """Print the plan of a run.

    Raises:
        InputError: as the run itself would.
    """
    config = options.config
    encoder, builder = encoder_and_builder(tokenizer, config)
    encoded = encode_dataset(
        train_data,
        encoder,
        name="train_data",
        drop_overlong=config.overlong_prompts == "drop",
        num_proc=config.dataset_num_proc,
    )
    contexts = encoded_contexts(train_data, encoded, encoder, config, "train_data")
    trees = tree_dataset(encoded, builder, "train_data", contexts)
    console = screen.console()
    console.print(_data_table(trees, encoded))
    if contexts is not None:
        console.print(_contexts_table(trees))
    console.print(steps_line(config, len(trees)), soft_wrap=True)
    network, trainable, model_config = empty_model(model, options.model)
    shards = config.world_size if config.world_size > 1 else _SHARDS
    batch = _widest_batch(trees, config, is_dense(network))
    whole, sharded = (
        estimate_memory(network, model_config, config, batch, options.model, devices) for devices in (1, shards)
    )
    console.print(_memory_table(whole, sharded, shards, network, trainable))
    verdict = f"{_fits(whole, 'one device')}; {_fits(sharded, f'{shards} devices that share the model')}"
    console.print(verdict, soft_wrap=True)


def empty_model(name: str, options: ModelConfig) -> tuple[torch.nn.Module, int, PreTrainedConfig]:
    """Build the model without weights; returns it, its number of trainable parameters and its configuration.

    Raises:
        InputError: The model has no configuration here, or can't express token trees.
    """
    model_config = load_config(name, options.model_revision)
    attention = {"attn_implementation": options.attn_implementation} if options.attn_implementation else {}
    with init_empty_weights():
        dtype = _weight_dtype(options.dtype, model_config)
        try:
            model = AutoModelForCausalLM.from_config(model_config, dtype=dtype, trust_remote_code=False, **attention)
        # A nonsensical configuration makes a model's own code raise nearly anything; the cause stays chained.
        except Exception as error:
            raise unreadable(name, error) from error
        TreeAttention(model.config)
        adapter = get_peft_config(options)
        if adapter is not None:
            try:
                model = get_peft_model(model, adapter)
            except ValueError as error:
                raise InputError(f"use_peft: {first_line(error)}") from error
    return model, sum(p.numel() for p in model.parameters() if p.requires_grad), model_config


def _weight_dtype(dtype: str | None, model_config: PreTrainedConfig) -> torch.dtype:
    if dtype in (None, "auto"):
        dtype = str(model_config.dtype or "float32").removeprefix("torch.")
    return cast(torch.dtype, getattr(torch, str(dtype)))


def _data_table(trees: TreeDataset, encoded: Dataset) -> Table:
    safety = np.count_nonzero(values_of(encoded, "rto") | values_of(encoded, "fixed_cut"))
    targets: Counter[int] = Counter()
    unique = naive = 0
    sample = range(0, len(trees), max(1, len(trees) // _SAMPLE))
    for index in sample:
        tree = trees[0, index]
        if tree is not None:
            targets.update(tree.terms)
            unique += len(tree)
            naive += tree.naive_tokens
    scale = len(trees) / len(sample)
    about = "" if len(sample) == len(trees) else "about "
    table = Table(title="Data of one epoch", title_justify="left", show_header=False)
    table.add_row("safety examples", f"{safety:,}")
    table.add_row("helpful examples", f"{len(encoded) - safety:,}")
    for term in Term:
        table.add_row(f"{term.name} targets", f"{about}{round(targets[term] * scale):,}")
    table.add_row("tokens", f"{about}{round(unique * scale):,}")
    table.add_row("tokens of separate sequences", f"{about}{round(naive * scale):,}")
    return table


def _contexts_table(trees: TreeDataset) -> Table:
    """Count the examples and targets of one epoch by context, and what each costs beside the same examples plain."""
    sample = range(0, len(trees), max(1, len(trees) // _SAMPLE))
    plain = TreeDataset(trees.encoded, trees.builder)
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for index in sample:
        drawn = trees.draw(index, 0)
        tree = trees.builder(drawn.example, index, 0)
        if tree is None:
            continue
        count = counts[drawn.context]
        kind = "safety" if drawn.example.is_safety else "helpful"
        count.update({kind: 1, "left plain": int(not drawn.made), "tokens": len(tree)})
        count.update({"targets": sum(map(bool, tree.terms)), "plain": len(plain[0, index] or ())})
    scale = len(trees) / len(sample)
    about = "" if len(sample) == len(trees) else ", about"
    table = Table(title=f"By context, the first epoch{about}", title_justify="left")
    columns = ("safety", "helpful", "left plain", "targets", "tokens")
    for column in ("context", *columns, "of plain"):
        table.add_column(column, justify="left" if column == "context" else "right")
    total = sum(counts.values(), Counter())
    for name, count in (*sorted(counts.items(), key=lambda item: -item[1]["tokens"]), ("all", total)):
        ratio = f"{count['tokens'] / max(1, count['plain']):.2f} ×"
        table.add_row(name, *(f"{round(count[column] * scale):,}" for column in columns), ratio)
    return table


def count_steps(config: DeRTaConfig, examples: int) -> int:
    """Return how many optimizer steps a run takes on so many examples.

    Raises:
        InputError: Incomplete batches are left out, and there is no other.
    """
    per_epoch = math.ceil(examples / examples_per_step(config))
    if config.dataloader_drop_last:
        batches = examples // (config.per_device_train_batch_size * config.world_size)
        per_epoch = math.ceil(batches / config.gradient_accumulation_steps)
        if not batches:
            raise InputError(f"dataloader_drop_last: {examples} examples make no whole batch; leave it out")
    return config.max_steps if config.max_steps > 0 else math.ceil(per_epoch * config.num_train_epochs)


def examples_per_step(config: DeRTaConfig) -> int:
    """Return how many examples an optimizer step takes, over accumulation and ranks."""
    examples: int = config.per_device_train_batch_size * config.gradient_accumulation_steps * config.world_size
    return examples


def steps_line(config: DeRTaConfig, examples: int) -> str:
    """Say in a line how long a run is."""
    steps, per_step = count_steps(config, examples), examples_per_step(config)
    epochs = steps / math.ceil(examples / per_step)
    return f"{steps:,} optimizer steps of {per_step} examples, {epochs:.2f} epochs; method {config.method}"


def _widest_batch(trees: TreeDataset, config: DeRTaConfig, dense: bool) -> tuple[int, int]:
    """Shape of the largest of the first micro-batches of an epoch on a GPU."""
    row_length = config.tokens_of_a_row(dense)
    keys = iter(EpochSampler(len(trees), seed=config.seed))
    shapes = []
    for _ in range(min(20, len(trees) // config.per_device_train_batch_size or 1)):
        some = [trees[key] for key, _ in zip(keys, range(config.per_device_train_batch_size), strict=False)]
        batch = collate([tree for tree in some if tree is not None], row_length)
        shapes.append((batch["input_ids"].shape[0], batch["input_ids"].shape[1]))
    return max(shapes, key=lambda shape: shape[0] * shape[1])


def _memory_table(whole: Memory, sharded: Memory, shards: int, model: torch.nn.Module, trainable: int) -> Table:
    total = sum(p.numel() for p in model.parameters())
    table = Table(
        title=f"Memory estimate: {total:,} parameters, {trainable:,} trainable",
        title_justify="left",
    )
    table.add_column("GB on each device")
    table.add_column("whole model (one device, DDP)", justify="right")
    table.add_column(f"shared by {shards} (FSDP2, ZeRO-3)", justify="right")
    for name in (*(part.name for part in fields(Memory)), "total"):
        table.add_row(name, *(f"{getattr(memory, name) / 1e9:,.2f}" for memory in (whole, sharded)))
    return table


def _fits(memory: Memory, where: str) -> str:
    """Say whether it fits 80 GB, with a tenth left for what isn't counted."""
    return f"{where}: {'fits' if memory.total <= 0.9 * _DEVICE_BYTES else 'does not fit'} 80 GB each"
