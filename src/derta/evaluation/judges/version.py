"""Which version of a judge decided: a digest of its rules, or of the prompt that it asks its model with."""

import hashlib
import inspect
from functools import cache
from pathlib import Path

from derta.evaluation.judges import JUDGES, MODEL_JUDGES, asking
from derta.organism import judge as organism_judge


@cache
def judge_version(name: str) -> str:
    """Return a short digest of the source of the judge called `name`: numbers of another version aren't its own."""
    digest = hashlib.sha256()
    for path in _sources(name):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _sources(name: str) -> list[Path]:
    own = Path(inspect.getfile(JUDGES.get(name) or MODEL_JUDGES[name]))
    if own.parent.name == "rules":
        return sorted(own.parent.glob("*.py"))
    more = inspect.getfile(organism_judge if name == "organism" else asking)
    return [own, Path(more)]
