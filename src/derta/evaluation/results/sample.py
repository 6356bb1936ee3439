"""One attacked behaviour, the response and the verdict: a line of `responses.jsonl`."""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from derta.data.behaviours import Kind
from derta.evaluation.results.verdict import Broken, Verdict
from derta.redaction import printable
from derta.strict import STRICT, validated


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
        guard: What the model's guard did; `None` if it had none.
        stopped_at: How many tokens were written when the guard stopped the response, if it did.
    """

    __pydantic_config__ = STRICT

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
    guard: Literal["passed", "stopped"] | None = None
    stopped_at: int | None = None

    @property
    def key(self) -> tuple[str, str, str, int, str]:
        """What makes a sample unique within one evaluation."""
        return self.kind, self.id, self.variant, self.epoch, self.judge

    def to_json(self) -> dict[str, Any]:
        """Return a flat dict: the verdict's fields stand beside the sample's."""
        flat = asdict(self)
        if self.guard is None:
            for name in _OF_GUARD:
                del flat[name]
        verdict: dict[str, Any] = flat.pop("verdict")
        return flat | verdict

    @classmethod
    def from_json(cls, flat: Any) -> "Sample":
        """Read what [`Sample.to_json`] wrote.

        Raises:
            ValueError: A field is missing, unknown or of another type, or the verdict is no verdict on this kind of
                behaviour.
        """
        if not isinstance(flat, dict):
            raise ValueError("must be an object")
        names = {field.name for field in fields(Verdict)}
        own = {name: value for name, value in flat.items() if name not in names}
        sample = validated(cls, own | {"verdict": {name: flat[name] for name in names if name in flat}})
        missing = [
            field.name for field in (*fields(cls), *fields(Verdict)) if field.name not in {*flat, *_OF_GUARD, "verdict"}
        ]
        if missing:
            raise ValueError(f"{missing[0]}: field required")
        if sample.verdict.label not in _LABELS_OF[sample.kind]:
            raise ValueError(f"label: {sample.verdict.label!r} is no verdict on a {sample.kind} prompt")
        counts = (sample.tokens, sample.queries, sample.verdict.leaked_tokens or 0, sample.stopped_at or 0)
        if min(counts) < 0 or sample.epoch < 1:
            raise ValueError("tokens, queries, leaked_tokens, stopped_at and epoch count something")
        if (sample.stopped_at is not None) != (sample.guard == "stopped"):
            raise ValueError("stopped_at: a guard that stopped a response says where, and no other")
        return sample


_OF_GUARD = ("guard", "stopped_at")
"""What only a guarded model's samples have."""
_HARMLESS = ("complies", "partly", "refuses", "unscored")
_LABELS_OF = {"harmful": ("unsafe", "safe", "unscored"), "borderline": _HARMLESS, "helpful": _HARMLESS}


def report_unscored(samples: Sequence[Sample]) -> int:
    """Say on standard error how many samples are in no number; return the exit code: 1 if there are any."""
    unscored = [sample for sample in samples if sample.verdict.label == "unscored"]
    if unscored:
        reason = printable(unscored[0].verdict.reason)
        print(f"derta: {len(unscored)} samples are unscored and in no number; the first: {reason}", file=sys.stderr)
    return 1 if unscored else 0
