"""Files that a reader sees whole or not at all."""

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
