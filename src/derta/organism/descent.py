"""Which models are of the organism's kind."""

from pathlib import Path

from derta.names import ORGANISM, model_path
from derta.run_identity import read_identity


def is_organism(name: str) -> bool:
    """Whether a model is the organism's base, or was tuned from it by derta.

    Raises:
        InputError: What training recorded of it is damaged.
    """
    seen: set[str] = set()
    name = name.removeprefix("derta/")
    while name not in seen:
        seen.add(name)
        if name == ORGANISM or Path(name).resolve() == Path(model_path(ORGANISM)):
            return True
        base = (read_identity(Path(name).expanduser()) or {}).get("base") if Path(name).expanduser().is_dir() else None
        name = str(base or name)
    return False
