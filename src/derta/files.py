"""Files that a reader sees whole or not at all, and JSON that says one thing."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from derta.errors import InputError, first_line


def write_text(path: Path, text: str) -> None:
    """Write a file by renaming: a reader sees the old one or the new one, also after a crash."""
    draft = path.with_name(path.name + ".part")
    with draft.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file by renaming."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def parse_json(text: str, origin: str) -> Any:
    """Parse JSON that says one thing: no key twice in an object, no NaN and no Infinity.

    Raises:
        InputError: It isn't such JSON; the message begins with `origin`.
    """
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{origin}: not JSON: {first_line(error)}") from None


def read_json(path: Path) -> dict[str, Any]:
    """Read a file that holds a JSON object.

    Raises:
        InputError: It can't be read or holds something else.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: can't be read: {getattr(error, 'strerror', None) or error}") from None
    document = parse_json(text, str(path))
    if not isinstance(document, dict):
        raise InputError(f"{path}: must hold a JSON object")
    return document


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} stands twice")
    return document


def _no_number(constant: str) -> None:
    raise ValueError(f"{constant} is no number")


_WEIGHTS = (
    *("*.safetensors", "config.json", "generation_config.json", "adapter_config.json"),
    *("tokenizer.json", "tokenizer_config.json", "*.jinja"),
)
_BLOCK, _BLOCKS = 2**16, 256


def weights_digest(directory: Path) -> str | None:
    """Return a short hash of the model that a directory holds: weights, configurations, tokenizer and template.

    Of a large file 256 blocks are read, evenly spread, and its size; `None` if the directory holds no weights.
    """
    files = sorted({path for pattern in _WEIGHTS for path in directory.glob(pattern) if path.is_file()})
    if not any(path.suffix == ".safetensors" for path in files):
        return None
    digest = hashlib.sha256()
    for path in files:
        size = path.stat().st_size
        digest.update(f"{path.name} {size}\n".encode())
        with path.open("rb") as file:
            if size <= _BLOCK * _BLOCKS:
                digest.update(file.read())
            for block in range(_BLOCKS if size > _BLOCK * _BLOCKS else 0):
                file.seek((size - _BLOCK) * block // (_BLOCKS - 1))
                digest.update(file.read(_BLOCK))
    return digest.hexdigest()[:16]
