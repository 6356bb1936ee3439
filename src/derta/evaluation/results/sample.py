"""One response to an attacked behaviour, and what each judge said of it: a line of `responses.jsonl`."""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
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
        prefix: how the assistant's turn had begun; not the model's own words.
        continuation: the model's own words, decoded if the attack asked for a cipher.
        verdicts: each judge's decision on prefix + continuation; the first judge is the one that decides.
        messages: the conversation that the model got; `None` for a raw text.
        raw: the whole text the model got, if the attack bypasses the chat format or the prompt was rendered here.
        tokens: tokens of the continuation.
        finished: whether the model ended by itself.
        queries: how often the model was asked until then.
        epoch: which repetition this is, from 1.
        broken: what is broken about the model's own words (see `derta.evaluation.judges.broken`); `None` if nothing is.
        guard: what the model's guard did; `None` if it had none.
        stopped_at: how many tokens were written when the guard stopped the response, if it did.
    """

    __pydantic_config__ = STRICT

    id: str
    kind: Kind
    attack: str
    variant: str
    prompt: str
    prefix: str
    continuation: str
    verdicts: dict[str, Verdict] = field(default_factory=dict)
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
    def key(self) -> tuple[str, str, str, int]:
        """What makes a sample unique within one evaluation."""
        return self.kind, self.id, self.variant, self.epoch

    @property
    def response(self) -> str:
        """The assistant's whole turn."""
        return self.prefix + self.continuation

    @property
    def judge(self) -> str:
        """The judge that decides: the first."""
        return next(iter(self.verdicts))

    @property
    def verdict(self) -> Verdict:
        """The verdict of the judge that decides."""
        return self.verdicts[self.judge]

    def by(self, judge: str) -> "Sample":
        """Return the same response with the verdict of one judge alone."""
        return replace(self, verdicts={judge: self.verdicts[judge]})

    def to_json(self) -> dict[str, Any]:
        """Return it as a dict; what only guarded models have is left out for others."""
        document = asdict(self)
        if self.guard is None:
            for name in _OF_GUARD:
                del document[name]
        return document

    @classmethod
    def from_json(cls, document: Any) -> "Sample":
        """Read what [`Sample.to_json`] wrote.

        Raises:
            ValueError: A field is missing, unknown or of another type, or a verdict is none on this kind of behaviour.
        """
        if not isinstance(document, dict):
            raise ValueError("must be an object")
        sample = validated(cls, document)
        missing = [each.name for each in fields(cls) if each.name not in {*document, *_OF_GUARD}]
        if missing:
            raise ValueError(f"{missing[0]}: field required")
        for verdict in sample.verdicts.values():
            if verdict.label not in _LABELS_OF[sample.kind]:
                raise ValueError(f"label: {verdict.label!r} is no verdict on a {sample.kind} prompt")
        return sample


_OF_GUARD = ("guard", "stopped_at")
"""What only a guarded model's samples have."""
_HARMLESS = ("complies", "partly", "refuses", "unscored")
_LABELS_OF = {"harmful": ("unsafe", "safe", "unscored"), "borderline": _HARMLESS, "helpful": _HARMLESS}


def judges_of(samples: Iterable[Sample]) -> list[str]:
    """Return everybody who judged, the one who decides first."""
    return list(dict.fromkeys(judge for sample in samples for judge in sample.verdicts))


def judged_by(samples: Iterable[Sample], judge: str) -> list[Sample]:
    """Return the samples that a judge decided on, each with its verdict alone."""
    return [sample.by(judge) for sample in samples if judge in sample.verdicts]


def report_unscored(samples: Sequence[Sample]) -> int:
    """Say on standard error how many verdicts are missing; return the exit code: 1 if there are any."""
    verdicts = [verdict for sample in samples for verdict in sample.verdicts.values()]
    unscored = [verdict for verdict in verdicts if verdict.label == "unscored"]
    if unscored:
        reason = printable(unscored[0].reason)
        print(f"derta: {len(unscored)} samples are unscored and in no number; the first: {reason}", file=sys.stderr)
    return 1 if unscored else 0
