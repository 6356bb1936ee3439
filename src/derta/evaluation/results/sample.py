"""One attacked behaviour, the response and the verdict: a line of `responses.jsonl`."""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from derta.data.behaviours import Kind
from derta.data.readers import printable
from derta.evaluation.judges.base import Verdict
from derta.evaluation.judges.broken import Broken


@dataclass(frozen=True)
class Sample:
    """What was asked, what came back, and what it was judged to be.

    Attributes:
        id: the behaviour's id.
        kind: the behaviour's kind.
        attack: the attack's name.
        variant: the attack's name, or which of its forms this is: `prefill@5`.
        prompt: the behaviour in plain words, as the judge sees it.
        messages: the conversation that the model got; `None` for a raw text.
        raw: the whole text the model got, if the attack bypasses the chat format or the prompt was rendered here.
        prefix: how the assistant's turn had begun; not the model's own words.
        continuation: the model's own words, decoded if the attack asked for a cipher.
        tokens: tokens of the continuation.
        finished: whether the model ended by itself.
        queries: how often the model was asked until then.
        epoch: which repetition this is, from 1.
        broken: What is broken about the model's own words (see `derta.evaluation.judges.broken`); `None` if nothing is.
        judge: the judge's name.
        verdict: its decision on prefix + continuation.
    """

    id: str
    kind: Kind
    attack: str
    variant: str
    prompt: str
    prefix: str
    continuation: str
    judge: str
    verdict: Verdict
    messages: list[dict[str, str]] | None = None
    raw: str | None = None
    tokens: int = 0
    finished: bool = True
    queries: int = 1
    epoch: int = 1
    broken: Broken | None = None

    @property
    def key(self) -> tuple[str, str, int, str]:
        """What makes a sample unique within one evaluation."""
        return self.id, self.variant, self.epoch, self.judge

    def to_json(self) -> dict[str, Any]:
        """Return a flat dict: the verdict's fields stand beside the sample's."""
        flat = asdict(self)
        verdict: dict[str, Any] = flat.pop("verdict")
        return flat | verdict

    @classmethod
    def from_json(cls, flat: dict[str, Any]) -> "Sample":
        """Read what [`Sample.to_json`] wrote; `KeyError` if a field is missing."""
        verdict = Verdict(**{field.name: flat[field.name] for field in fields(Verdict)})
        own = {field.name: flat[field.name] for field in fields(cls) if field.name != "verdict"}
        return cls(**own, verdict=verdict)


def report_unscored(samples: Sequence[Sample]) -> int:
    """Say on standard error how many samples are in no number; return the exit code: 1 if there are any."""
    unscored = [sample for sample in samples if sample.verdict.label == "unscored"]
    if unscored:
        reason = printable(unscored[0].verdict.reason)
        print(f"derta: {len(unscored)} samples are unscored and in no number; the first: {reason}", file=sys.stderr)
    return 1 if unscored else 0
