"""Load a model and its tokenizer for inference: from a directory, an adapter, the hub, or the embedded organism."""

import json
from pathlib import Path
from typing import Any, cast

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from derta.errors import InputError, first_line
from derta.names import model_path

_TOKENIZER_FILES = ("tokenizer_config.json", "tokenizer.json")


def load_model(
    name_or_path: str, device: str | None = None, dtype: torch.dtype | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a causal language model, ready to generate, and its tokenizer.

    Args:
        name_or_path (`str`): a model directory, a PEFT adapter directory (merged into its base in memory), a hub name,
            or `organism` for the packaged base model.
        device (`str`, *optional*): defaults to the GPU if there is one.
        dtype (`torch.dtype`, *optional*): defaults to the checkpoint's own on a GPU and to float32 on a CPU.

    Raises:
        InputError: there is no such model, or its files can't be read. Code from a repository is never run.
    """
    path = _resolve(name_or_path)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if dtype is None and device == "cpu":
        dtype = torch.float32
    try:
        base = _base_of(path)
        model = _load_weights(base or path, dtype or "auto")
        if base:
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, path).merge_and_unload()
        tokenizer = _load_tokenizer(path, base)
    except InputError:
        raise
    # transformers and its file formats raise nearly anything on a damaged checkpoint; the cause stays chained.
    except Exception as error:
        raise _not_loaded(name_or_path, path, error) from error
    return cast(PreTrainedModel, model.to(device).eval()), tokenizer


def load_tokenizer(name_or_path: str) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a model and nothing else; it takes what [`load_model`] takes.

    Raises:
        InputError: There is no such model, or its files can't be read.
    """
    path = model_path(name_or_path)
    alone = Path(path).is_dir() and any((Path(path) / name).is_file() for name in _TOKENIZER_FILES)
    path = path if alone else _resolve(name_or_path)
    try:
        return _load_tokenizer(path, _base_of(path))
    except InputError:
        raise
    except Exception as error:
        raise _not_loaded(name_or_path, path, error) from error


def _base_of(path: str) -> str | None:
    """Return the model that an adapter directory was tuned from; `None` for a whole model."""
    adapter = Path(path) / "adapter_config.json"
    return str(json.loads(adapter.read_text("utf-8"))["base_model_name_or_path"]) if adapter.is_file() else None


def _load_tokenizer(path: str, base: str | None) -> PreTrainedTokenizerBase:
    # An adapter directory written by a trainer holds the tokenizer it was tuned with; a bare adapter doesn't.
    own = not base or (Path(path) / "tokenizer_config.json").is_file()
    return cast(PreTrainedTokenizerBase, AutoTokenizer.from_pretrained(path if own else _resolve(base or path)))


def _not_loaded(name: str, path: str, error: Exception) -> InputError:
    where = "" if Path(path).is_dir() else "no such directory, and not from the hub either: "
    return InputError(f"{name}: this model can't be loaded: {where}{first_line(error)}")


def _load_weights(path: str, dtype: torch.dtype | str) -> Any:
    load: Any = AutoModelForCausalLM.from_pretrained
    model, info = load(_resolve(path), dtype=dtype, output_loading_info=True)
    if info["missing_keys"]:
        missing = sorted(info["missing_keys"])
        raise InputError(
            f"{path}: the checkpoint isn't whole: {len(missing)} weights are missing, such as {missing[0]}"
        )
    return model


def _resolve(name_or_path: str) -> str:
    path = model_path(name_or_path)
    directory = Path(path)
    if directory.is_dir() and not any((directory / name).is_file() for name in ("config.json", "adapter_config.json")):
        raise InputError(f"{name_or_path}: no config.json and no adapter_config.json here: not a model directory")
    return path
