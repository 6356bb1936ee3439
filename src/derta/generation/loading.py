"""Load checkpoints whole or not at all: models, adapters and tokenizers, for training, merging and inference.

Code that lies beside a checkpoint is never run.
"""

import hashlib
import json
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal, cast

import torch
from peft import PeftModel, get_peft_model_state_dict, load_peft_weights
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from derta.errors import InputError, first_line
from derta.files import read_json
from derta.names import WORLD, model_path, organism_world

_TOKENIZER_FILES = ("tokenizer_config.json", "tokenizer.json")
# Without this, transformers asks on the terminal whether to run a checkpoint's code.
_NO_CODE = {"trust_remote_code": False}


def load_model(
    name_or_path: str, device: str | None = None, dtype: torch.dtype | Literal["auto"] | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a causal language model, ready to generate, and its tokenizer.

    Args:
        name_or_path (`str`): a model directory, a PEFT adapter directory (merged into its base in memory), a hub
            name, or `organism` for the packaged base model.
        device (`str`, *optional*): defaults to the GPU if there is one.
        dtype (`torch.dtype`, *optional*): defaults to the checkpoint's own (`"auto"`) on a GPU and to float32 on a CPU.

    Raises:
        InputError: There is no such model, its files can't be read, or it isn't whole.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    kwargs: dict[str, Any] = {"dtype": dtype or (torch.float32 if device == "cpu" else "auto")}
    base = adapter_base(name_or_path)
    if base is None:
        model, tokenizer = load_weights(name_or_path, **kwargs), load_tokenizer(name_or_path)
    else:
        adapted = load_adapter(name_or_path, load_weights(base, **kwargs))
        model = cast(PreTrainedModel, cast(Any, adapted).merge_and_unload())
        tokenizer = load_tokenizer(name_or_path)
    return cast(PreTrainedModel, cast(Any, model).to(device).eval()), tokenizer


def load_weights(name_or_path: str, **kwargs: Any) -> PreTrainedModel:
    """Load a causal language model whose checkpoint holds exactly the model's weights.

    transformers itself draws missing weights at random and drops weights that the model has no place for.

    Args:
        name_or_path: a model directory, a hub name, or `organism`.
        kwargs: options of `from_pretrained`.

    Raises:
        InputError: There is no such model, its files can't be read, or weights are missing or left over.
    """
    path = _checkpoint_path(name_or_path)
    if (Path(path) / "adapter_config.json").is_file():
        raise InputError(f"{name_or_path}: is an adapter, not a whole model; merge it into its base first")
    if kwargs.pop("trust_remote_code", False):
        raise InputError("trust_remote_code: code beside a checkpoint is never run; leave it out")
    load: Any = AutoModelForCausalLM.from_pretrained
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # no table of what is checked below
    try:
        model, info = load(path, **kwargs, **_NO_CODE, output_loading_info=True, ignore_mismatched_sizes=True)
    # transformers and its file formats raise nearly anything on a damaged checkpoint; the cause stays chained.
    except Exception as error:
        raise unreadable(name_or_path, error) from error
    finally:
        logging.set_verbosity(verbosity)
    shapes = [f"{name} {list(found)} for {list(expected)}" for name, found, expected in info["mismatched_keys"]]
    _require_whole(
        name_or_path,
        {"missing": info["missing_keys"], "unexpected": info["unexpected_keys"], "of another shape": shapes},
    )
    return cast(PreTrainedModel, model)


def adapter_base(name_or_path: str) -> str | None:
    """Return the name of the base model that an adapter directory names; `None` if it holds no adapter.

    Raises:
        InputError: The adapter's configuration is damaged, or names no base.
    """
    config = Path(_checkpoint_path(name_or_path)) / "adapter_config.json"
    if not config.is_file():
        return None
    try:
        base = json.loads(config.read_text("utf-8"))["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise unreadable(name_or_path, error) from error
    if not isinstance(base, str) or not base:
        raise InputError(f"{config}: base_model_name_or_path names no model; write the base's directory or name there")
    return base


def world_of(name_or_path: str) -> int | None:
    """Return which of the organism's worlds a model knows: its base, or whatever was tuned from it; `None` for others.

    Raises:
        InputError: There is no such model, or its configuration is damaged.
    """
    named = organism_world(name_or_path)
    if named is not None:
        return named
    base = adapter_base(name_or_path)
    if base is not None:
        return world_of(base)
    config = Path(_checkpoint_path(name_or_path)) / "config.json"
    world = read_json(config).get(WORLD) if config.is_file() else None
    if world is not None and type(world) is not int:
        raise InputError(f"{config}: {WORLD}: {world!r} is no number")
    return world


def load_adapter(directory: str, base: PreTrainedModel) -> PeftModel:
    """Put an adapter on its base model; the file must hold exactly the adapter's weights.

    Raises:
        InputError: The adapter can't be read or doesn't fit, or weights are missing or left over.
    """
    path = _checkpoint_path(directory)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of what is checked below
            model = PeftModel.from_pretrained(cast(Any, base), path, ignore_mismatched_sizes=True)
        saved = {name: list(value.shape) for name, value in load_peft_weights(path, device="cpu").items()}
    except Exception as error:
        raise unreadable(directory, error) from error
    of_adapter = get_peft_model_state_dict(model, save_embedding_layers=False)
    # PEFT also saves the model's own embeddings where tokens were added.
    known = {name: list(value.shape) for name, value in {**model.state_dict(), **of_adapter}.items()}
    mismatched = {name: shape for name, shape in saved.items() if shape != known.get(name, shape)}
    shapes = [f"{name} {shape} for {known[name]}" for name, shape in mismatched.items()]
    missing, unexpected = of_adapter.keys() - saved, saved.keys() - known
    _require_whole(directory, {"missing": missing, "unexpected": unexpected, "of another shape": shapes})
    return cast(PeftModel, model)


def load_tokenizer(name_or_path: str, revision: str | None = None) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a model, or one that stands alone in a directory.

    Raises:
        InputError: There is none, or it can't be read.
    """
    path = model_path(name_or_path)
    if not any((Path(path) / name).is_file() for name in _TOKENIZER_FILES):
        # An adapter directory written by a trainer holds the tokenizer it was tuned with; a bare adapter doesn't.
        base = adapter_base(name_or_path)
        path = _checkpoint_path(base or name_or_path)
    try:
        return AutoTokenizer.from_pretrained(path, revision=revision or "main", **_NO_CODE)
    except InputError:
        raise
    except Exception as error:
        raise unreadable(name_or_path, error, "its tokenizer") from error


def load_config(name_or_path: str, revision: str | None = None) -> PreTrainedConfig:
    """Load the configuration of a model.

    Raises:
        InputError: There is none, or it can't be read.
    """
    try:
        load: Any = AutoConfig.from_pretrained
        config: PreTrainedConfig = load(_checkpoint_path(name_or_path), revision=revision or "main", **_NO_CODE)
        return config
    except InputError:
        raise
    except Exception as error:
        raise unreadable(name_or_path, error, "its configuration") from error


def _checkpoint_path(name_or_path: str) -> str:
    path = model_path(name_or_path)
    directory = Path(path)
    if directory.is_dir() and not any((directory / name).is_file() for name in ("config.json", "adapter_config.json")):
        raise InputError(f"{name_or_path}: no config.json and no adapter_config.json here: not a model directory")
    return path


def needs_code(error: Exception) -> bool:
    """Whether a library can load something only by running code that lies beside it."""
    return "trust_remote_code" in str(error)


def brings_code(name_or_path: str) -> InputError:
    """Return the error of a model that needs code of its own."""
    return InputError(
        f"model: {name_or_path} brings code of its own, which derta doesn't run; "
        "name a model whose architecture and tokenizer transformers itself has"
    )


def unreadable(name_or_path: str, error: Exception, what: str = "this model") -> InputError:
    """Return the error of a model, or of that part of it, that can't be loaded because of `error`."""
    if needs_code(error):
        return brings_code(name_or_path)
    where = "" if Path(model_path(name_or_path)).is_dir() else "no such directory, and not from the hub either: "
    return InputError(f"{name_or_path}: {what} can't be loaded: {where}{first_line(error)}")


def _require_whole(name_or_path: str, problems: dict[str, Collection[str]]) -> None:
    found = [
        f"{len(names)} weights are {problem}, such as {sorted(names)[0]}"
        for problem, names in problems.items()
        if names
    ]
    if found:
        raise InputError(f"{name_or_path}: the checkpoint doesn't fit its model: {'; '.join(found)}")


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
