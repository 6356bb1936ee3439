"""From a name on the command line to a model behind Inspect."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from inspect_ai.model import Model, get_model
from transformers import PreTrainedModel, PreTrainedTokenizerBase

import derta.inference.loading as inference
from derta.errors import InputError, first_line
from derta.evaluation.harness.provider import DertaAPI
from derta.names import ORGANISM

# Inspect's providers by what a model's name begins with. Any other name is a directory or a hub name.
PROVIDERS = {
    "derta",
    "hf",
    "vllm",
    "sglang",
    "openai-api",
    "ollama",
    "llama-cpp-python",
    "mockllm",
    "openai",
    "anthropic",
    "google",
    "groq",
    "grok",
    "together",
    "fireworks",
    "openrouter",
    "mistral",
    "deepseek",
    "perplexity",
    "azureai",
    "bedrock",
    "cloudflare",
    "sambanova",
    "hf-inference-providers",
    "litellm-proxy",
}


def load_model(name: str, model_args: Mapping[str, Any] | None = None) -> Model:
    """Return the model: `organism`, a directory or a hub name in this process; `PROVIDER/MODEL` through Inspect.

    Raises:
        InputError: it can't be loaded, or the provider lacks something.
    """
    full = _full_name(name)
    args = dict(model_args or {})
    if full.startswith("hf/"):
        # Greedy: at a temperature of 0 this provider fails.
        args.setdefault("do_sample", False)
    try:
        # A second model of the same name may be another checkpoint by now.
        model = get_model(full, memoize=False, **args)
        if isinstance(model.api, DertaAPI):
            # Now, so that a model that can't be loaded stops everything.
            _ = model.api.weights
        return model
    except InputError:
        raise
    except Exception as error:
        hint = "" if full.startswith("derta/") else f" (for weights from the hub: derta/{name})"
        raise InputError(f"`model` {name}: {first_line(error)}{hint}") from error


def _full_name(name: str) -> str:
    if name == ORGANISM or Path(name).expanduser().exists() or name.partition("/")[0] not in PROVIDERS:
        return f"derta/{name}"
    return name


def load_tokenizer(name: str) -> PreTrainedTokenizerBase | None:
    """Return the tokenizer of a model of this process; `None` behind a server, whose tokenizer isn't known.

    Raises:
        InputError: It can't be loaded.
    """
    provider, _, path = _full_name(name).partition("/")
    return inference.load_tokenizer(path) if provider == "derta" else None


def fingerprint(model: PreTrainedModel) -> str:
    """Return a short hash of the weights: two checkpoints of one name differ in it.

    It samples every parameter rather than reading all of it, so that it is quick for large models.
    """
    digest = hashlib.sha256()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            flat = weight.reshape(-1)
            few = flat[:: max(1, flat.numel() // 256)][:256].float().cpu().contiguous()
            digest.update(f"{name}{tuple(weight.shape)}".encode())
            digest.update(few.numpy().tobytes())
    return digest.hexdigest()[:16]
