"""`derta.json`: what training leaves beside weights to say whose run they are."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from derta.errors import InputError
from derta.files import file_digest, read_json

IDENTITY = "derta.json"


def read_identity(directory: Path) -> dict[str, Any] | None:
    """Read whose run, checkpoint or model a directory holds; `None` if it doesn't say."""
    path = directory / IDENTITY
    if not path.is_file():
        return None
    try:
        identity = read_json(path)
        for name in ("settings", "files", "trained_with"):
            if not isinstance(identity.get(name, {}), dict):
                raise InputError(f"{path}: {name}: must be a JSON object")
        tokens = identity.get("trained_with", {}).get("refusal_tokens", {})
        if not isinstance(tokens, dict) or not all(re.fullmatch("[0-9]{1,9}", token) for token in tokens):
            raise InputError(f"{path}: trained_with: refusal_tokens: must be an object of token ids")
        if type(identity.get("processes", 1)) is not int:
            raise InputError(f"{path}: processes: must be a whole number")
    except InputError as error:
        raise InputError(f"{error}; mend the file, or name another directory") from error
    return identity


def trained_with(tokenizer: Any, refusals: Sequence[int]) -> dict[str, Any]:
    """Return what a model is used with as it was trained: a digest of its chat template, and its refusal tokens."""
    template = hashlib.sha256(str(tokenizer.chat_template).encode("utf-8", "surrogatepass")).hexdigest()[:16]
    tokens = {str(token): tokenizer.convert_ids_to_tokens(token) for token in refusals}
    return {"template": template, "refusal_tokens": tokens}


def check_trained_with(identity: Mapping[str, Any], tokenizer: Any, name: str) -> None:
    """Stop at a tokenizer that isn't what the model was trained with: its numbers would be of another model.

    What the identity doesn't say isn't checked.
    """
    held = identity.get("trained_with", {})
    now = trained_with(tokenizer, [int(token) for token in held.get("refusal_tokens", {})])
    for part, what in (("template", "chat template"), ("refusal_tokens", "refusal token")):
        if part in held and held[part] != now[part]:
            raise InputError(
                f"`model` {name}: its {what} isn't the one that it was trained with; put the tokenizer of its training "
                "back beside it"
            )


def check_files(directory: Path, identity: Mapping[str, Any]) -> None:
    """Stop at a file that isn't what was saved, as far as the identity tells."""
    for name, digest in identity.get("files", {}).items():
        path = directory / name
        if not path.is_file():
            raise InputError(f"{path}: can't be read: it is missing")
        if file_digest(path) != digest:
            raise InputError(f"{path}: can't be read: it isn't what was saved")


def template_options(identity: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return what the chat template got in training, if that was anything and is known."""
    options: dict[str, Any] | None = (identity or {}).get("settings", {}).get("chat_template_kwargs")
    return options
