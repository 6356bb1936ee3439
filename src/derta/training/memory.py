"""How much memory a training step takes on each device: a model on paper, of what is held at the widest moment."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from transformers import PreTrainedConfig
from trl import ModelConfig

from derta.method.attention import is_dense
from derta.method.chunked_log_probs import chunk_values
from derta.training.config import DeRTaConfig

# Blocks of 64 values share a float32 scale (QLoRA, arXiv 2305.14314, without double quantisation).
_BYTES_IN_4BIT = 0.5 + 4 / 64


@dataclass(frozen=True)
class Memory:
    """Estimated bytes on one device.

    Attributes:
        weights: Takes the parameters as they are stored, with 16-bit copies of mixed precision.
        gathered: Takes whole layers of a sharded model while they are computed, and what lies outside its layers.
        gradients: Takes the gradients of trainable parameters.
        optimizer: Takes the optimizer's state of trainable parameters.
        activations: Takes the activations of one micro-batch, and the attention mask.
        logits: Takes the logits of one chunk, in its steps from the output head to the gradient.
    """

    weights: int
    gathered: int
    gradients: int
    optimizer: int
    activations: int
    logits: int

    @property
    def total(self) -> int:
        """Sum of the parts."""
        return sum(getattr(self, part.name) for part in fields(self))


def estimate_memory(
    model: torch.nn.Module,
    model_config: PreTrainedConfig,
    config: DeRTaConfig,
    batch_shape: tuple[int, int],
    options: ModelConfig,
    devices: int = 1,
) -> Memory:
    """Estimate the memory of each device, for layers like Llama's with fused attention.

    What the allocator, the kernels and communication keep for themselves is not counted: leave a tenth free.

    Args:
        model: Comes from `empty_model`, in the type that its weights are loaded in.
        model_config: Is the model's configuration.
        config: Is the configuration of the run.
        batch_shape: Counts rows, and tokens of a row, of the largest micro-batch.
        options: Says how weights are loaded.
        devices: Counts the devices that share one model (FSDP2 or ZeRO-3); with 1 each holds all of it, as under DDP.
    """
    trainable = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    weights = _weight_bytes(model, options)
    mixed = config.bf16 or config.fp16
    compute = 2 if mixed else next(model.parameters()).element_size()
    layers = model_config.get_text_config().num_hidden_layers
    of_layer = max(map(_values, _layers(model, layers))) * compute
    outside = (_values(model) - sum(map(_values, _layers(model, layers)))) * compute
    copies = sum(2 * p.numel() for p in model.parameters() if mixed and p.dim() > 1 and p.element_size() > 2)
    logits = batch_shape[0] * batch_shape[1] * model_config.get_text_config().vocab_size
    return Memory(
        weights=math.ceil(weights / devices) if devices > 1 else weights + copies,
        # One layer at work and the next on its way.
        gathered=outside + 2 * of_layer if devices > 1 else 0,
        gradients=math.ceil(trainable / devices),
        optimizer=math.ceil(_optimizer_bytes(model, str(getattr(config.optim, "value", config.optim))) / devices),
        activations=_activation_bytes(model, model_config, config, batch_shape, compute),
        logits=3 * 4 * min(logits, chunk_values(config.device.type)),
    )


def _values(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _layers(model: torch.nn.Module, count: int) -> list[torch.nn.Module]:
    """Return the model's decoder layers."""
    lists = (m for m in model.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == count)
    return list(next(lists))


def _weight_bytes(model: torch.nn.Module, options: ModelConfig) -> int:
    total = sum(p.numel() * p.element_size() for p in model.parameters())
    if options.load_in_4bit or options.load_in_8bit:
        size = _BYTES_IN_4BIT if options.load_in_4bit else 1
        for weight in _quantised(model):
            total += math.ceil(weight.numel() * size) - weight.numel() * weight.element_size()
    return total


def _quantised(model: torch.nn.Module) -> Iterator[torch.Tensor]:
    """Weights that bitsandbytes quantises: of frozen linear layers, but not of the output head."""
    get_head = getattr(model, "get_output_embeddings", None)
    head = get_head() if get_head is not None else None
    for module in model.modules():
        if isinstance(module, torch.nn.Linear) and module is not head and not module.weight.requires_grad:
            yield module.weight


def _optimizer_bytes(model: torch.nn.Module, name: str) -> int:
    """State of an optimizer: two moments in the parameters' type, unless its name says otherwise."""
    moments = 0 if name in ("sgd", "adafactor") else 1 if "lion" in name or name in ("adagrad", "rmsprop") else 2
    size = 1.0 if name.endswith(("8bit", "8bit_layerwise")) or name.endswith("torchao_8bit") else None
    if "4bit" in name:
        size = 0.5
    return sum(
        math.ceil(moments * p.numel() * (p.element_size() if size is None else size))
        for p in model.parameters()
        if p.requires_grad
    )


def _activation_bytes(
    model: torch.nn.Module, model_config: PreTrainedConfig, config: DeRTaConfig, shape: tuple[int, int], compute: int
) -> int:
    """What autograd keeps of one micro-batch.

    With activation checkpointing: the input of every layer, and all of the one that is computed again; all of the
    layers that `every_n_layers` skips; `offload` keeps the inputs in the host's memory.
    """
    text = model_config.get_text_config()
    rows, width = shape
    tokens, layers = rows * width, text.num_hidden_layers
    residual = next(model.parameters()).element_size()
    # SDPA takes the mask as numbers to add, made in each layer.
    mask = tokens * width if is_dense(model) else 0
    per_layer = tokens * _layer_bytes_per_token(model, model_config, residual, compute) + mask * compute
    kept = layers * per_layer
    if config.activation_checkpointing or _fsdp_checkpointing(config):
        options: Any = (config.activation_checkpointing_kwargs if config.activation_checkpointing else None) or {}
        checkpointed = math.ceil(layers / options.get("every_n_layers", 1))
        inputs = 0 if options.get("offload") else checkpointed * tokens * text.hidden_size * residual
        kept = inputs + (layers - checkpointed + 1) * per_layer
    # The mask, the last norm, and hidden states at targets.
    return int(kept + mask + tokens * text.hidden_size * (4 + 2 * residual))


def _layer_bytes_per_token(model: torch.nn.Module, model_config: PreTrainedConfig, residual: int, compute: int) -> int:
    text = model_config.get_text_config()
    hidden = text.hidden_size
    heads = text.num_attention_heads * (getattr(text, "head_dim", None) or hidden // text.num_attention_heads)
    experts = getattr(text, "num_experts_per_tok", None) or 1
    inner = (getattr(text, "moe_intermediate_size", None) or text.intermediate_size) * experts
    # Two norms: input in float32, normalised, scaled; mixed precision casts that for each of the five projections.
    scaled = 5 if residual > compute else 2
    norms = hidden * (2 * (4 + residual) + scaled * compute)
    attention = 4 * heads * compute  # queries, keys and values of every head, output
    feed_forward = 4 * inner * compute  # gate, activated gate, up, product
    return int(norms + attention + feed_forward) + _adapter_bytes_per_token(model, text.num_hidden_layers, compute)


def _adapter_bytes_per_token(model: torch.nn.Module, layers: int, compute: int) -> int:
    """What LoRA keeps in one layer: its rank, and with dropout an input of its own and what was dropped."""
    total = 0
    for module in _layers(model, layers)[0].modules():
        if isinstance(module, LoraLayer):
            for name, rank in module.r.items():
                dropped = getattr(module.lora_dropout[name], "p", 0.0) > 0 if name in module.lora_dropout else False
                total += rank * compute + (module.in_features * (compute + 1) if dropped else 0)
    return total


def _fsdp_checkpointing(config: DeRTaConfig) -> bool:
    options = config.fsdp_config if isinstance(config.fsdp_config, dict) else {}
    return str(options.get("activation_checkpointing", "")).lower() == "true"
