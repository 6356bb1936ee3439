"""What a baseline is: its constants, and how it makes the trainer of a run."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from derta.errors import InputError, did_you_mean
from derta.training.config import DeRTaConfig
from derta.training.options import TrainOptions
from derta.training.run_trainer import RunTrainer

Constants = Mapping[str, Any]


@dataclass(frozen=True)
class Setting:
    """What the trainer of a run is made from.

    Attributes:
        options: Are those of `derta train`; `options.config.max_steps` is the budget of the trainer that is made.
        train_data: Holds triples and helpful examples in canonical columns.
        tokenizer: Is the base model's.
        constants: Are the baseline's, those that the user set included.
    """

    options: TrainOptions
    train_data: Dataset
    tokenizer: PreTrainedTokenizerBase
    constants: Constants

    @property
    def config(self) -> DeRTaConfig:
        """The configuration of the run."""
        return self.options.config

    def with_config(self, config: Any, constants: Constants | None = None) -> "Setting":
        """Return the same setting with another configuration, and other constants if they are given."""
        options = replace(self.options, config=config)
        return replace(self, options=options, constants=self.constants if constants is None else constants)


@dataclass(frozen=True)
class Baseline:
    """One method to compare with.

    Attributes:
        name: Names it on the command line and in tables.
        summary: Says in a line what it does.
        source: Names its paper.
        make: Makes the trainer of a run.
        constants: Gives its constants by name, and what they are unless the user sets them.
        first: Says which stages come first and take part of the budget; empty for a baseline of one stage.
    """

    name: str
    summary: str
    source: str
    make: Callable[[Setting], RunTrainer]
    constants: Constants
    first: str = ""


BASELINES: dict[str, Baseline] = {}


def register_baseline(baseline: Baseline) -> None:
    """Let `derta train --method` find a baseline by its name."""
    BASELINES[baseline.name] = baseline


def find_baseline(name: str) -> Baseline:
    """Return a baseline by name.

    Raises:
        InputError: There is none of this name.
    """
    if name not in BASELINES:
        raise InputError(f"baseline: no {name!r}{did_you_mean(name, BASELINES)}; one of {', '.join(BASELINES)}")
    return BASELINES[name]


def constants_of(baseline: Baseline, given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a baseline's constants with those that the user set.

    Raises:
        InputError: A constant is unknown, or of another type than its default.
    """
    constants = dict(baseline.constants)
    for name, value in (given or {}).items():
        if name not in constants:
            known = ", ".join(constants)
            raise InputError(
                f"`constants` {name}: {baseline.name} has none of this name{did_you_mean(name, constants)}; "
                f"there are {known}"
            )
        constants[name] = _of_type(value, constants[name], f"`constants` {name}")
    return constants


def _of_type(value: Any, default: Any, where: str) -> Any:
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{where}: {value} is no finite number")
    if type(value) is type(default):
        return value
    raise InputError(f"{where}: {json.dumps(value)} is not of the kind of its default, {json.dumps(default)}")
