"""A model organism: a small fictional world, a base model that knows it by heart, and a judge that knows the truth.

It exists to run everything in minutes and to compare methods over many seeds; it proves nothing about larger models.
"""

from pathlib import Path

from derta.organism.data import behaviours, training_data
from derta.organism.judge import OrganismVerdict, judge
from derta.organism.world import PACKAGED, World

__all__ = ["PACKAGED", "OrganismVerdict", "World", "behaviours", "judge", "path", "training_data"]


def path() -> Path:
    """Directory of the packaged base model, for `from_pretrained`."""
    return Path(__file__).parent / "base"
