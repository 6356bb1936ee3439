"""`derta train --dry-run`: what a run would train on, in how many steps and how much memory, without its weights."""

import math
from collections import Counter
from dataclasses import dataclass

import torch
from accelerate import init_empty_weights
from datasets import Dataset
from peft import get_peft_model
from rich.console import Console
from rich.table import Table
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedTokenizerBase
from trl import ModelConfig, get_peft_config

from derta.errors import InputError
from derta.training.builder import encoder_and_builder
from derta.training.config import DeRTaConfig
from derta.training.dataset import EpochSampler, TreeDataset, encode_dataset, tree_dataset
from derta.training.objective import CHUNK_VALUES, AttentionMasks
from derta.training.options import TrainOptions
from derta.training.tree import Term, collate

_SAMPLE = 2000


@dataclass(frozen=True)
class Memory:
    """Estimated bytes on one device of a run without sharding.

    Attributes:
        weights: parameters as they are loaded.
        gradients: of trainable parameters.
        optimizer: AdamW's two moments of trainable parameters, in float32.
        activations: of one micro-batch, attention mask and one chunk of logits included.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        """Sum of the parts."""
        return self.weights + self.gradients + self.optimizer + self.activations


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
    trees = tree_dataset(encoded, builder, "train_data")
    console = Console()
    console.print(_data_table(trees, encoded))
    console.print(_steps_line(config, len(trees)), soft_wrap=True)
    network, trainable, model_config = empty_model(model, options.model)
    memory = estimate_memory(network, model_config, config, _widest_batch(trees, config), options.model)
    console.print(_memory_table(memory, network, trainable))


def empty_model(name: str, options: ModelConfig) -> tuple[torch.nn.Module, int, PreTrainedConfig]:
    """Build the model without weights; returns it, its number of trainable parameters and its configuration.

    Raises:
        InputError: the model has no configuration here, or can't express token trees.
    """
    try:
        model_config = AutoConfig.from_pretrained(name, revision=options.model_revision)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"model_name_or_path: can't read the configuration of {name!r}: {reason}") from error
    attention = {"attn_implementation": options.attn_implementation} if options.attn_implementation else {}
    with init_empty_weights():
        model = AutoModelForCausalLM.from_config(model_config, **attention)
        AttentionMasks(model.config)
        adapter = get_peft_config(options)
        if adapter is not None:
            model = get_peft_model(model, adapter)
    return model, sum(p.numel() for p in model.parameters() if p.requires_grad), model_config


def estimate_memory(
    model: torch.nn.Module,
    model_config: PreTrainedConfig,
    config: DeRTaConfig,
    batch_shape: tuple[int, int],
    options: ModelConfig,
) -> Memory:
    """Estimate the memory of one device that holds the whole model.

    Activations follow Korthikanti et al. (2022, https://arxiv.org/abs/2205.05198), without dropout and with fused
    attention: 34 bytes a token, layer and hidden unit in 16-bit training; with activation checkpointing 2 bytes, and
    one layer at work.

    Args:
        model: from `empty_model`.
        model_config: its configuration.
        config: of the run.
        batch_shape: rows and tokens a row of the largest micro-batch.
        options: says how weights are loaded.
    """
    text = model_config.get_text_config()
    size = 0.5 if options.load_in_4bit else 1 if options.load_in_8bit else _bytes(options.dtype, model_config)
    total = sum(p.numel() for p in model.parameters())
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    trainable_size = _bytes(options.dtype, model_config)
    rows, width = batch_shape
    tokens = rows * width
    per_layer = tokens * text.hidden_size * (34 if config.bf16 or config.fp16 else 68)
    stored = text.num_hidden_layers * per_layer
    if config.activation_checkpointing:
        stored = text.num_hidden_layers * tokens * text.hidden_size * 2 + per_layer
    logits = 3 * 4 * min(tokens * text.vocab_size, CHUNK_VALUES)
    return Memory(
        weights=int((total - trainable) * size + trainable * trainable_size),
        gradients=int(trainable * trainable_size),
        optimizer=8 * trainable,
        activations=stored + rows * width * width + logits,
    )


def _bytes(dtype: str | None, model_config: PreTrainedConfig) -> int:
    if dtype in (None, "auto"):
        dtype = str(model_config.dtype or "float32").removeprefix("torch.")
    return int(getattr(torch, str(dtype)).itemsize)


def _data_table(trees: TreeDataset, encoded: Dataset) -> Table:
    kinds = Counter(
        "safety" if rto or fixed else "helpful" for rto, fixed in zip(encoded["rto"], encoded["fixed_cut"], strict=True)
    )
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
    table.add_row("safety examples", f"{kinds['safety']:,}")
    table.add_row("helpful examples", f"{kinds['helpful']:,}")
    for term in Term:
        table.add_row(f"{term.name} targets", f"{about}{round(targets[term] * scale):,}")
    table.add_row("tokens", f"{about}{round(unique * scale):,}")
    table.add_row("tokens of separate sequences", f"{about}{round(naive * scale):,}")
    return table


def _steps_line(config: DeRTaConfig, examples: int) -> str:
    per_step = config.per_device_train_batch_size * config.gradient_accumulation_steps * config.world_size
    per_epoch = math.ceil(examples / per_step)
    steps = config.max_steps if config.max_steps > 0 else math.ceil(per_epoch * config.num_train_epochs)
    return f"{steps:,} optimizer steps of {per_step} examples, {steps / per_epoch:.2f} epochs; method {config.method}"


def _widest_batch(trees: TreeDataset, config: DeRTaConfig) -> tuple[int, int]:
    """Shape of the largest of the first micro-batches of an epoch."""
    keys = iter(EpochSampler(len(trees), seed=config.seed))
    shapes = []
    for _ in range(min(20, len(trees) // config.per_device_train_batch_size or 1)):
        some = [trees[key] for key, _ in zip(keys, range(config.per_device_train_batch_size), strict=False)]
        batch = collate([tree for tree in some if tree is not None], config.row_length)
        shapes.append((batch["input_ids"].shape[0], batch["input_ids"].shape[1]))
    return max(shapes, key=lambda shape: shape[0] * shape[1])


def _memory_table(memory: Memory, model: torch.nn.Module, trainable: int) -> Table:
    total = sum(p.numel() for p in model.parameters())
    table = Table(title="Memory estimate, one device", title_justify="left", show_header=False)
    table.add_row("parameters", f"{total:,}")
    table.add_row("trainable", f"{trainable:,}")
    for name in ("weights", "gradients", "optimizer", "activations", "total"):
        table.add_row(name, f"{getattr(memory, name) / 2**20:,.0f} MiB")
    return table
