"""Files of hand-made rows."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# A deadline would fail on a busy machine, and these properties need no more examples than this.
settings.register_profile("data", deadline=None, max_examples=30)
settings.load_profile("data")

WriteLines = Callable[..., Path]


@pytest.fixture
def write_rows(tmp_path: Path) -> WriteLines:
    """Write rows as JSON lines and return the file."""

    def write(rows: Sequence[Any], name: str = "rows.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="session")
def released_rows() -> Path:
    """The four rows of training data that came with the DeRTa release."""
    path = Path(__file__).parents[2].parent / "shared" / "data" / "derta_example_rows.jsonl"
    if not path.exists():
        pytest.skip(f"needs {path}, which is not part of the repository")
    return path
