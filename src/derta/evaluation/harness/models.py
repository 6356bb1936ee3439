"""From a name on the command line to a model behind Inspect."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inspect_ai.model import Model, get_model
from transformers import PreTrainedTokenizerBase

from derta.errors import InputError
from derta.evaluation.harness.provider import DertaAPI
from derta.generation import loading
from derta.names import organism_world
from derta.redaction import redacted

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


TOKENIZER = "tokenizer"
"""A model option that is ours whatever the provider: the tokenizer of the model behind a server."""
TEMPLATE = "chat_template_kwargs"
"""Another: what a server's chat template gets, as `{"enable_thinking": False}` for Qwen3."""
_TEMPLATES_ON_REQUEST = ("vllm", "sglang", "openai-api")


def load_model(name: str, model_args: Mapping[str, Any] | None = None) -> Model:
    """Return the model: `organism`, a directory or a hub name in this process; `PROVIDER/MODEL` through Inspect.

    Raises:
        InputError: It can't be loaded, or the provider lacks something.
    """
    full = _full_name(name)
    _check_template(full, (model_args or {}).get(TEMPLATE))
    if "trust_remote_code" in (model_args or {}):
        raise InputError("`model_arg` trust_remote_code: code beside a model is never run; leave it out")
    if "guard" in (model_args or {}) and not full.startswith("derta/"):
        raise InputError(f"`guard`: {name} is behind a server; put derta guard serve before it and evaluate that")
    ours = (TOKENIZER,) if full.startswith("derta/") else (TOKENIZER, TEMPLATE)
    args = {key: value for key, value in (model_args or {}).items() if key not in ours}
    if full.startswith("hf/"):
        # Greedy: at a temperature of 0 this provider fails.
        args.setdefault("do_sample", False)
    try:
        # A second model of the same name may be another checkpoint by now.
        model = get_model(full, memoize=False, **args)
        # What Inspect writes into its logs; the provider itself has its own by now.
        model.model_args = redacted(model.model_args)
        model._explicit_base_url = redacted(model.explicit_base_url)
        if isinstance(model.api, DertaAPI):
            # Now, so that a model that can't be loaded stops everything.
            _ = model.api.weights
        return model
    except InputError:
        raise
    except Exception as error:
        if loading.needs_code(error):
            raise loading.brings_code(name) from error
        hint = "" if full.startswith("derta/") else f" (for weights from the hub: derta/{name})"
        raise InputError(f"`model` {name}: {_reason(error)}{hint}") from error


def _check_template(full: str, given: Any) -> None:
    """Stop at options of a chat template that aren't a mapping, or that the provider has no place for."""
    if given is None:
        return
    if not isinstance(given, dict):
        raise InputError(f"`model_arg` {TEMPLATE}: {given!r} is no mapping; give '{{\"enable_thinking\": false}}'")
    provider = full.partition("/")[0]
    if provider not in ("derta", *_TEMPLATES_ON_REQUEST):
        known = ", ".join(_TEMPLATES_ON_REQUEST)
        raise InputError(
            f"`model_arg` {TEMPLATE}: {provider} has no place for it; it is for models here and at {known}"
        )


def _reason(error: Exception) -> str:
    """Return what an error of a provider says, its remedy included: it stands in a line further down, in markup."""
    lines = re.sub(r"\[/?[a-z ]+\]", "", str(error)).splitlines()
    said = " ".join(line.strip() for line in lines if line.strip()) or type(error).__name__
    missing = re.findall(r"\b[A-Z][A-Z0-9]*_[A-Z0-9_]+\b", said) if "environment" in said else []
    names = " or ".join(dict.fromkeys(missing))
    mend = f"; set {names} (any text will do where a server wants none)" if missing else ""
    return said.removeprefix("ERROR: ") + mend


def _full_name(name: str) -> str:
    if organism_world(name) is not None or Path(name).expanduser().exists() or name.partition("/")[0] not in PROVIDERS:
        return f"derta/{name}"
    return name


def load_tokenizer(name: str, model_args: Mapping[str, Any] | None = None) -> PreTrainedTokenizerBase | None:
    """Return the tokenizer of a model of this process or, of a server's, the one that the user named; else `None`.

    Raises:
        InputError: It can't be loaded, or it was named for a model that has its own.
    """
    provider, _, path = _full_name(name).partition("/")
    named = (model_args or {}).get(TOKENIZER)
    if provider != "derta":
        return loading.load_tokenizer(str(named)) if named else None
    if named:
        raise InputError(f"`model_arg` {TOKENIZER}: {name} has its own; it is for models behind a server")
    return loading.load_tokenizer(path)


def world_of(name: str) -> int | None:
    """Return which of the organism's worlds a model of this process knows; `None` for any other model.

    Raises:
        InputError: Its configuration is damaged.
    """
    provider, _, path = _full_name(name).partition("/")
    return loading.world_of(path) if provider == "derta" else None
