"""Tiny random models of the architectures that derta is tested on."""

from typing import Any

from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    Phi3Config,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen3Config,
    set_seed,
)

SMALL: dict[str, Any] = {
    "vocab_size": 400,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": 2,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
EAGER: dict[str, Any] = {"attn_implementation": "eager"}
_LAYERS = ["sliding_attention", "full_attention", "sliding_attention"]


def configs() -> dict[str, PreTrainedConfig]:
    """One configuration per architecture; windows are shorter than the rows of the tests."""
    return {
        "llama": LlamaConfig(**SMALL),
        "llama-tied": LlamaConfig(**SMALL, tie_word_embeddings=True),
        "llama-eager": LlamaConfig(**SMALL, **EAGER),
        "mistral-window": MistralConfig(**SMALL, sliding_window=7),
        "mixtral": MixtralConfig(**SMALL, num_local_experts=4, sliding_window=None),
        "qwen3": Qwen3Config(**SMALL, head_dim=8),
        "qwen3-mixed-window": Qwen3Config(
            **SMALL, head_dim=8, use_sliding_window=True, sliding_window=6, max_window_layers=1
        ),
        "gemma2-capped": Gemma2Config(**SMALL, head_dim=8, sliding_window=6, final_logit_softcapping=2.0, **EAGER),
        "gemma3": Gemma3TextConfig(**SMALL, head_dim=8, sliding_window=6, layer_types=_LAYERS),
        "gemma3-capped": Gemma3TextConfig(
            **SMALL, head_dim=8, sliding_window=6, layer_types=_LAYERS, final_logit_softcapping=2.0
        ),
        "phi3-window": Phi3Config(**SMALL, sliding_window=7),
        "cohere-scaled": CohereConfig(**SMALL),
        "granite-scaled": GraniteConfig(**SMALL, logits_scaling=4.0),
    }


def tiny(name: str = "llama", **changes: object) -> PreTrainedModel:
    """Return a random model, the same at every call."""
    set_seed(0)
    config = configs()[name]
    for field, value in changes.items():
        setattr(config, field, value)
    model = AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():
        if parameter.dim() == 1:  # norms that start at 0 or 1 would hide mistakes in what they scale
            parameter.data.add_(0.1)
    return model
