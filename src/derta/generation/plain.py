"""One request after the other through transformers' own `generate`: for architectures that can't be batched exactly."""

from collections import deque
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedModel

from derta.generation.jobs import Job, choose


class PlainDecoder:
    """Runs jobs one by one; slow, and right for every architecture that `generate` is right for."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._waiting: deque[Job] = deque()

    @property
    def busy(self) -> bool:
        """Whether there is anything left to do."""
        return bool(self._waiting)

    def add(self, job: Job) -> None:
        """Queue a job."""
        self._waiting.append(job)

    def clear(self) -> None:
        """Drop every job."""
        self._waiting.clear()

    @torch.inference_mode()
    def step(self) -> list[Job]:
        """Run the next job to its end and return it."""
        job = self._waiting.popleft()
        model: Any = self._model
        ids = torch.tensor([job.context.ids], device=model.device)
        # What a given configuration leaves open is filled from the checkpoint's, which the job itself obeys: a penalty
        # would count twice.
        shipped, model.generation_config = (
            model.generation_config,
            GenerationConfig(do_sample=False, use_cache=True, max_new_tokens=job.limit),
        )
        try:
            model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                logits_processor=LogitsProcessorList([_Chooser(job)]),
                stopping_criteria=[lambda *_: torch.tensor([job.over], device=model.device)],
            )
        finally:
            model.generation_config = shipped
        return [job]


class _Chooser(LogitsProcessor):
    """Leaves `generate` no choice but the job's."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        ((token, logprob),) = choose(scores, [self._job])
        self._job.write(token, logprob)
        forced = torch.full_like(scores, -torch.inf)
        forced[:, token] = 0.0
        return forced
