"""`derta train --dry-run`: what a run would train on, in how many steps, how much memory and about how long.

No weights are loaded. Memory and time are estimates: they say whether a run is worth starting here, not more.
"""

import math
import os
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from datasets import Dataset
from peft import get_peft_model
from rich.table import Table
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedTokenizerBase
from trl import ModelConfig, get_peft_config

from derta.errors import InputError, first_line
from derta.generation.loading import load_config, unreadable
from derta.method.attention import TreeAttention, is_dense
from derta.method.chunked_log_probs import chunk_values
from derta.method.tree import Term, collate
from derta.terminal import screen
from derta.training.config import DeRTaConfig
from derta.training.dataset import TreeDataset, encode_dataset, encoder_and_builder, tree_dataset, values_of
from derta.training.encoded_contexts import encoded_contexts
from derta.training.options import TrainOptions
from derta.training.sampling import EpochSampler

FREE = 0.9
"""Share of a device's memory that an estimate may take: allocators and kernels keep some for themselves."""
_SAMPLE = 2000
_SHARDS = 8
# What training reaches of the speed of a large matrix product: 0.3 to 0.6, on CPUs as on GPUs.
_UTILISATION = 0.4


@dataclass(frozen=True)
class Machine:
    """What a run has here: a kind of device, the bytes of one, and how many there are."""

    name: str
    memory: int
    devices: int

    @classmethod
    def here(cls) -> "Machine":
        """Look at this machine."""
        if torch.cuda.is_available():
            properties = torch.cuda.get_device_properties(0)
            return cls(properties.name, properties.total_memory, torch.cuda.device_count())
        return cls("CPU", os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), 1)

    @property
    def is_gpu(self) -> bool:
        """Whether it has a GPU."""
        return self.name != "CPU"


@dataclass(frozen=True)
class Memory:
    """Estimated bytes of a training step on a device that holds the whole model.

    Attributes:
        weights: The parameters as they are stored, with 16-bit copies in mixed precision.
        gradients: Those of trainable parameters.
        optimizer: AdamW's two moments of trainable parameters.
        activations: What autograd keeps of one micro-batch, and the logits of one chunk.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        """Sum of the parts."""
        return self.weights + self.gradients + self.optimizer + self.activations

    def shared_by(self, devices: int) -> int:
        """Bytes on each of several devices that share the model: activations are each device's own."""
        return (self.total - self.activations) // devices + self.activations


def print_plan(options: TrainOptions, train_data: Dataset, tokenizer: PreTrainedTokenizerBase, model: str) -> None:
    """Print the plan of a run.

    Raises:
        InputError: as the run itself would.
    """
    config = options.config
    encoder, builder = encoder_and_builder(tokenizer, config)
    drop = config.overlong_prompts == "drop"
    encoded = encode_dataset(
        train_data, encoder, name="train_data", drop_overlong=drop, num_proc=config.dataset_num_proc
    )
    contexts = encoded_contexts(train_data, encoded, encoder, config, "train_data")
    trees = tree_dataset(encoded, builder, "train_data", contexts)
    console = screen.console()
    table, tokens = _data_table(trees, encoded)
    console.print(table)
    if contexts is not None:
        console.print(_contexts_table(trees))
    console.print(steps_line(config, len(trees)), soft_wrap=True)

    network, trainable, model_config = empty_model(model, options.model)
    batch = _widest_batch(trees, config, is_dense(network))
    memory = estimate_memory(network, model_config, config, batch, options.model)
    parameters = sum(p.numel() for p in network.parameters())
    console.print(f"Memory, estimated: {parameters:,} parameters, {trainable:,} trainable", style="italic")
    table = Table(show_header=False)
    for name in ("weights", "gradients", "optimizer", "activations", "total"):
        table.add_row(name, f"{getattr(memory, name) / 1e9:,.2f} GB")
    console.print(table)
    machine = Machine.here()
    console.print(_fits(memory, machine, config), soft_wrap=True)
    if (options.model.load_in_4bit or options.model.load_in_8bit) and not machine.is_gpu:
        console.print("QLoRA needs a CUDA GPU, and there is none here", soft_wrap=True)
    epochs = count_steps(config, len(trees)) * examples_per_step(config) / len(trees)
    # Forward and backward pass; LoRA takes no gradient of the weights that are frozen.
    operations = (6 if trainable == parameters else 4) * parameters * tokens * epochs / config.world_size
    seconds = operations / (_UTILISATION * _operations_per_second(config))
    time_here = f"{seconds / 3600:,.1f} hours" if seconds >= 3600 else f"{max(1, round(seconds / 60))} min"
    console.print(f"time on this machine: about {time_here}, give or take a factor of two", soft_wrap=True)


def empty_model(name: str, options: ModelConfig) -> tuple[torch.nn.Module, int, PreTrainedConfig]:
    """Build the model without weights; returns it, its number of trainable parameters and its configuration.

    Raises:
        InputError: The model has no configuration here, or can't express token trees.
    """
    model_config = load_config(name, options.model_revision)
    attention = {"attn_implementation": options.attn_implementation} if options.attn_implementation else {}
    # Not accelerate's `init_empty_weights`, which counts tied embeddings twice.
    with torch.device("meta"):
        dtype = options.dtype
        if dtype in (None, "auto"):
            dtype = str(model_config.dtype or "float32").removeprefix("torch.")
        stored = cast(torch.dtype, getattr(torch, str(dtype)))
        try:
            model = AutoModelForCausalLM.from_config(model_config, dtype=stored, trust_remote_code=False, **attention)
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


def estimate_memory(
    model: torch.nn.Module,
    model_config: PreTrainedConfig,
    config: DeRTaConfig,
    batch_shape: tuple[int, int],
    options: ModelConfig,
) -> Memory:
    """Estimate the memory of a training step, for layers like Llama's with fused attention.

    Args:
        model: What `empty_model` returns.
        model_config: The model's configuration.
        config: The configuration of the run.
        batch_shape: Rows, and tokens of a row, of the largest micro-batch.
        options: How weights are loaded.
    """
    mixed = config.bf16 or config.fp16
    stored = next(model.parameters()).element_size()
    compute = 2 if mixed else stored
    weights = gradients = trainable = 0
    for parameter in model.parameters():
        size = float(parameter.element_size())
        if parameter.requires_grad:
            trainable += parameter.numel()
            gradients += parameter.nbytes
        elif parameter.dim() > 1 and (options.load_in_4bit or options.load_in_8bit):
            # Blocks of 64 values share a float32 scale (QLoRA, arXiv 2305.14314).
            size = 0.5 + 4 / 64 if options.load_in_4bit else 1.0
        weights += math.ceil(parameter.numel() * size)
        # Mixed precision keeps a 16-bit copy of each matrix.
        weights += 2 * parameter.numel() if mixed and parameter.dim() > 1 and size > 2 else 0
    optimizer = str(getattr(config.optim, "value", config.optim))
    moments = {"sgd": 0}.get(optimizer, 2 * trainable if "8bit" in optimizer else 2 * gradients)

    text = model_config.get_text_config()
    rows, width = batch_shape
    tokens, layers = rows * width, text.num_hidden_layers
    experts = getattr(text, "num_experts_per_tok", None) or 1
    inner = (getattr(text, "moe_intermediate_size", None) or text.intermediate_size) * experts
    # Of one token in one layer: two norms in float32; queries, keys, values and output; the four parts of a gated MLP.
    of_token = text.hidden_size * (24 + 4 * compute) + 4 * inner * compute
    if is_dense(model):
        of_token += width * compute  # SDPA makes a row of the mask into numbers to add
    kept = layers * tokens * of_token
    fsdp = config.fsdp_config if isinstance(config.fsdp_config, dict) else {}
    if config.activation_checkpointing or str(fsdp.get("activation_checkpointing")).lower() == "true":
        # The input of each layer, and all of the one that is computed again.
        kept = layers * tokens * text.hidden_size * stored + tokens * of_token
    logits = 3 * 4 * min(tokens * text.vocab_size, chunk_values(config.device.type))
    return Memory(weights, gradients, moments, kept + logits)


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
    of = "1 example" if per_step == 1 else f"{per_step} examples"
    return f"{steps:,} optimizer steps of {of}, {epochs:.2f} epochs; method {config.method}"


def _data_table(trees: TreeDataset, encoded: Dataset) -> tuple[Table, int]:
    """Count the targets of one epoch by term; returns the epoch's tokens as well."""
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
    tokens = round(unique * scale)
    table = Table(title="Data of one epoch", title_justify="left", show_header=False)
    table.add_row("safety examples", f"{safety:,}")
    table.add_row("helpful examples", f"{len(encoded) - safety:,}")
    for term in Term:
        table.add_row(f"{term.name} targets", f"{about}{round(targets[term] * scale):,}")
    table.add_row("tokens", f"{about}{tokens:,}")
    table.add_row("tokens of separate sequences", f"{about}{round(naive * scale):,}")
    return table, tokens


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


def _fits(memory: Memory, machine: Machine, config: DeRTaConfig) -> str:
    """Say whether a step fits this machine, and what each of several devices would hold."""
    fits = "fits" if memory.total <= FREE * machine.memory else "does not fit"
    shards = config.world_size if config.world_size > 1 else _SHARDS
    shared = f"shared by {shards} devices (FSDP2, ZeRO-3) about {memory.shared_by(shards) / 1e9:,.1f} GB each"
    return f"this machine ({machine.name}, {machine.memory / 1e9:,.1f} GB): {fits}; {shared}"


def _operations_per_second(config: DeRTaConfig) -> float:
    """Time a product of two matrices in the type that the run computes in."""
    dtype = torch.bfloat16 if config.bf16 else torch.float16 if config.fp16 else torch.float32
    size = 4096 if config.device.type == "cuda" else 1024
    matrix = torch.ones(size, size, dtype=dtype, device=config.device)
    fastest = math.inf
    for _ in range(3):
        began = time.perf_counter()
        (matrix @ matrix)[0, 0].item()  # waits for a GPU
        fastest = min(fastest, time.perf_counter() - began)
    return 2 * size**3 / fastest
