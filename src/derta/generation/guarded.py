"""transformers' own `generate` behind a guard: the same verdicts as the engine's and the proxy's."""

from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, StoppingCriteria, StoppingCriteriaList

from derta.errors import InputError
from derta.generation.jobs import end_tokens
from derta.generation.refusal import refusal_mass
from derta.generation.requests import decode
from derta.guard.calibration import Calibration
from derta.guard.hold_back import HoldBack


@dataclass(frozen=True)
class GuardedAnswer:
    """One row of what `generate` wrote.

    Attributes:
        text: What may be shown: the answer, or what of it had left, and the guard's refusal.
        tokens: Holds the tokens that left.
        stopped_at: Says how many were written when the guard stopped the answer; `None` if it didn't.
    """

    text: str
    tokens: list[int]
    stopped_at: int | None


class GuardedModel:
    """A model whose `generate` stops where it would rather refuse.

        guarded = GuardedModel(model, tokenizer, load_calibration(Path("runs/watched/guard.json")))
        (answer,) = guarded.generate(**tokenizer("…", return_tensors="pt"), max_new_tokens=200)

    Args:
        model (`PreTrainedModel`): Generates.
        tokenizer (`PreTrainedTokenizerBase`): Is its tokenizer.
        calibration (`Calibration`): Says when to stop.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, calibration: Calibration) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.calibration = calibration

    def generate(self, input_ids: torch.Tensor, **kwargs: Any) -> list[GuardedAnswer]:
        """Generate for a batch as `model.generate` does, and return what may be shown of each row.

        Args:
            input_ids (`torch.Tensor`): Holds the prompts, rows x tokens, padded on the left.
            kwargs: Go to `model.generate`.

        Raises:
            InputError: Rows would be beamed or returned several times a prompt, or written several tokens a step.
        """
        asked = kwargs.get("generation_config") or self.model.generation_config
        if any((kwargs.get(name) or getattr(asked, name) or 1) > 1 for name in ("num_beams", "num_return_sequences")):
            raise InputError("num_beams: a guard follows one stream a row; leave beams and several answers out")
        ends = end_tokens(self.model, self.tokenizer)
        watcher = _Watcher(self.calibration)
        # The logits as the model gives them, before any processor: a threshold is on the model's own probabilities.
        hook = self.model.register_forward_hook(lambda module, given, output: watcher.see(output.logits))
        criteria = StoppingCriteriaList([*(kwargs.pop("stopping_criteria", None) or []), watcher])
        try:
            generate: Any = self.model.generate
            written = generate(input_ids, **kwargs, stopping_criteria=criteria)
        finally:
            hook.remove()
        rows = written if isinstance(written, torch.Tensor) else written.sequences
        return [
            self._answer(row, chances, ends)
            for row, chances in zip(rows[:, input_ids.shape[1] :].tolist(), watcher.chances(), strict=True)
        ]

    def _answer(self, row: list[int], chances: list[float], ends: frozenset[int]) -> GuardedAnswer:
        hold_back: HoldBack[int] = self.calibration.new_hold_back()
        left: list[int] = []
        if len(row) != len(chances):
            raise InputError("generate: a guard follows one token a step; leave assisted generation out")
        for token, chance in zip(row, chances, strict=True):
            if token in ends:
                left += hold_back.end([chance])
                break
            left += hold_back.push(token, [chance])
        left += hold_back.end()
        text = decode(self.tokenizer, left)
        if hold_back.stopped_at is not None:
            text += self.calibration.ending(follows=bool(text.strip()))
        return GuardedAnswer(text, left, hold_back.stopped_at)


class _Watcher(StoppingCriteria):
    """Measures p(refuse) at every step, and ends the rows that the guard stops."""

    def __init__(self, calibration: Calibration) -> None:
        self._calibration = calibration
        self._steps: list[torch.Tensor] = []
        self._stopped = torch.zeros((), dtype=torch.bool)

    def see(self, logits: torch.Tensor) -> None:
        """Take the logits of one step: rows x tokens x vocabulary."""
        mass = refusal_mass(logits[:, -1], self._calibration.tokens)
        # NaN is above every threshold. A row that was stopped once stays so in transformers' own loop.
        self._stopped = ~(mass <= self._calibration.threshold)
        self._steps.append(mass)

    def chances(self) -> list[list[float]]:
        """Return p(refuse) of every row at every step."""
        rows: list[list[float]] = torch.stack(self._steps, dim=1).tolist()
        return rows

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        return self._stopped
