"""Configuration of baselines: that of `derta train`, and the constants of the method."""

from dataclasses import dataclass
from typing import Any

from derta.contexts import context_weights
from derta.errors import InputError
from derta.training.config import DeRTaConfig
from experiments.baselines.base import constants_of, find_baseline

OF_DERTA = (
    *("cuts_per_triple", "cut_policy", "cut_at_start", "rto_weight", "rto_dropout", "rto_schedule", "rto_on_end"),
    "refuse_at",
    *("refusal_text", "loss_normalization", "row_length"),
)
"""Options that a recipe may hold and that say something about derta's own objective only."""


@dataclass
class BaselineConfig(DeRTaConfig):
    r"""Configuration of a baseline: [`DeRTaConfig`], with a baseline's name as `method`.

    Parameters:
        constants (`dict[str, Any]`, *optional*):
            Constants of the method that differ from its defaults, such as `{"beta": 0.2}`.
    """

    _VALID_DICT_FIELDS = [*DeRTaConfig._VALID_DICT_FIELDS, "constants"]  # noqa: RUF012

    constants: dict[str, Any] | str | None = None

    def __post_init__(self) -> None:
        """Check the options as `derta train` does, and the constants.

        Raises:
            InputError: An option is out of range, contradicts another, or asks for what baselines don't do.
        """
        super().__post_init__()
        if not isinstance(self.constants or {}, dict):
            raise InputError(f"constants: {self.constants!r} is no mapping of names to values")
        constants: Any = self.constants
        constants_of(find_baseline(self.method), constants)
        if self.world_size > 1 or self.n_gpu > 1 or self.fsdp or self.deepspeed:
            raise InputError("launch: baselines train in one process, on one device, unsharded; launch it so")
        if context_weights(self.contexts) is not None:
            raise InputError("contexts: baselines see every example plain; leave it out, or give none")
        # Losses are means over a micro-batch.
        self.label_names = []

    def _check_names(self) -> None:
        find_baseline(self.method)
