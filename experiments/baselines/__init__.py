"""Baselines: methods to compare with, each a file that registers itself, in runs like those of `derta train`.

Some of them have the harmful response as a target, a negative one. They live here alone: nothing that derta itself
trains with imports this package, and `DeRTaTrainer` refuses any batch in which harmful text is a target.
"""

from experiments.baselines import (
    circuit_breakers,
    constrained_sft,
    door,
    dpo,
    goal_priority,
    r2d2,
    refusal_token,
    sofa,
    w_door,
)
from experiments.baselines.base import BASELINES, Baseline, Setting, find_baseline, register_baseline

__all__ = [
    "BASELINES",
    "Baseline",
    "Setting",
    "circuit_breakers",
    "constrained_sft",
    "door",
    "dpo",
    "find_baseline",
    "goal_priority",
    "r2d2",
    "refusal_token",
    "register_baseline",
    "sofa",
    "w_door",
]
