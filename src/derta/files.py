"""Files that a reader sees whole or not at all."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any


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


_WEIGHTS = ("*.safetensors", "config.json", "adapter_config.json", "tokenizer.json", "tokenizer_config.json", "*.jinja")
_BLOCK, _BLOCKS = 2**16, 256


def weights_digest(directory: Path) -> str | None:
    """Return a short hash of the model that a directory holds: weights, configuration, tokenizer and template.

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
