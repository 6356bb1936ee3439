"""Which version of a judge decided: a digest of its rules, or of the prompt that it asks its model with."""

import hashlib
import inspect
from functools import cache
from pathlib import Path

from derta.evaluation.judges import asking, find_judge
from derta.organism import judge as organism_judge


@cache
def judge_version(name: str) -> str:
    """Return a short digest of the source of the judge called `name`: numbers of another version aren't its own."""
    digest = hashlib.sha256()
    for path in _sources(name):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _sources(name: str) -> list[Path]:
    spec = find_judge(name)
    own = Path(inspect.getfile(spec.factory))
    if own.parent.name == "rules":
        return sorted(own.parent.glob("*.py"))
    more = inspect.getfile(asking if spec.needs_model else organism_judge)
    return [own, Path(more)]
