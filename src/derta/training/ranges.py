"""What the numbers of a recipe may be: one table for every option that is a number."""

import math
import sys
from dataclasses import dataclass, fields
from typing import Any

from derta.errors import InputError


@dataclass(frozen=True)
class Range:
    """Numbers from `least` to `most`; never infinite, never NaN.

    Attributes:
        least: The smallest number.
        most: The largest one; open without it, up to what is finite.
        whole: Whether it counts something.
        above: Whether `least` itself is left out.
        below: Whether `most` itself is left out.
        mend: Says what to do for what is out of range, where that isn't obvious.
    """

    least: float = 0
    most: float = math.inf
    whole: bool = False
    above: bool = False
    below: bool = False
    mend: str = ""

    def __contains__(self, value: Any) -> bool:
        # Not `isfinite`, which makes a float of a whole number of any length.
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
            return False
        return (
            (value > self.least if self.above else value >= self.least)
            and (value < self.most if self.below else value <= self.most)
            and not (self.whole and value != int(value))
        )

    def __str__(self) -> str:
        number = "a whole number" if self.whole else "a finite number"
        if math.isinf(self.most):
            return f"{number} {f'above {self.least}' if self.above else f'of {self.least} or more'}"
        least = "above" if self.above else "from"
        most = "and below" if self.below else "and at most" if self.above else "to"
        return f"{number} {least} {self.least} {most} {self.most}"


_COUNT = Range(1, 2**31 - 1, whole=True)
_ABOVE_0, _FROM_0, _SHARE = Range(above=True), Range(), Range(0, 1, below=True)
_SEED = Range(0, 2**32 - 1, whole=True)  # what NumPy takes
_STEPS = Range(above=True, mend="a number below 1 is a share of all steps")

RANGES = {
    # The optimizer
    "learning_rate": _ABOVE_0,
    "weight_decay": _FROM_0,
    "adam_beta1": _SHARE,
    "adam_beta2": _SHARE,
    "adam_epsilon": _ABOVE_0,
    "max_grad_norm": Range(mend="0 clips nothing"),
    "warmup_steps": Range(mend="a number below 1 is a share of all steps"),
    "neftune_noise_alpha": _FROM_0,
    # How long, and how much at once
    "num_train_epochs": Range(0, 1_000_000, above=True),
    "max_steps": Range(1, whole=True, mend="leave it out to count num_train_epochs"),
    "per_device_train_batch_size": _COUNT,
    "per_device_eval_batch_size": _COUNT,
    "gradient_accumulation_steps": _COUNT,
    "eval_accumulation_steps": _COUNT,
    "max_length": _COUNT,
    "row_length": _COUNT,
    # How often
    "logging_steps": _STEPS,
    "save_steps": Range(above=True, mend="for no checkpoint give save_strategy no"),
    "eval_steps": _STEPS,
    "eval_delay": _FROM_0,
    "save_total_limit": _COUNT,
    "torch_empty_cache_steps": _COUNT,
    "attack_steps": _COUNT,
    "attack_limit": _COUNT,
    # Data
    "max_examples": _COUNT,
    "dataset_num_proc": _COUNT,
    "dataloader_num_workers": Range(whole=True),
    "dataloader_prefetch_factor": _COUNT,
    # The method
    "cuts_per_triple": _COUNT,
    "rto_weight": _FROM_0,
    "rto_dropout": Range(0, 1, below=True, mend="for no RTO use method harmful-prefix"),
    # The adapter
    "lora_r": _COUNT,
    "lora_alpha": _COUNT,
    "lora_dropout": _SHARE,
    # Everything else
    "seed": _SEED,
    "data_seed": _SEED,
    "ddp_timeout": _COUNT,
    "ddp_bucket_cap_mb": _COUNT,
}
"""What each option may be. What an option is when it is left out may lie outside, as -1 for `max_steps`."""


def check_ranges(options: Any) -> None:
    """Stop at a number that its option can't be.

    Args:
        options: Is a dataclass, some of whose fields are in [`RANGES`].

    Raises:
        InputError: A number is out of range.
    """
    for option in fields(options):
        value = getattr(options, option.name)
        allowed = RANGES.get(option.name)
        if allowed is None or value is None or value == option.default or value in allowed:
            continue
        mend = f"; {allowed.mend}" if allowed.mend else ""
        raise InputError(f"{option.name}: {value} is not {allowed}{mend}")
