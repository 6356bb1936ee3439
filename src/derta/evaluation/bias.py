"""One number added to the refusal tokens' logits: as many refusals as harmless prompts allow."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from derta.errors import InputError
from derta.evaluation.in_process import answer_and_judge
from derta.evaluation.plan import Plan
from derta.evaluation.results.intervals import effective_n, wilson
from derta.evaluation.results.metrics import clusters_of
from derta.evaluation.results.sample import Sample
from derta.generation.refusal import sequence_bias, token_bias


@dataclass(frozen=True)
class BiasRow:
    """What a bias does.

    Attributes:
        bias: Is added to the logit of every refusal token.
        false_refusals: Is the share of harmless prompts that are refused, or whose answer nobody could judge, in %.
        false_low: Is the lower end of its 95 % interval.
        false_high: Is the upper end.
        prompts: Counts the harmless prompts.
        asr: Is the attack success rate in %; `None` if nothing harmful was asked.
        asr_low: Is the lower end of its 95 % interval.
        asr_high: Is the upper end.
        attacked: Counts the judged answers to attacks.
    """

    bias: float
    false_refusals: float
    false_low: float
    false_high: float
    prompts: int
    asr: float | None = None
    asr_low: float | None = None
    asr_high: float | None = None
    attacked: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the row as a dict, in the order of the fields."""
        return asdict(self)


def measure_biases(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    tokens: Sequence[int],
    biases: Sequence[float],
    harmless: Plan,
    harmful: Plan | None = None,
    *,
    chat_template_kwargs: dict[str, Any] | None = None,
) -> list[BiasRow]:
    """Ask everything under each bias, in ascending order; the model's own bias of other tokens stays.

    Args:
        model: Answers; its generation configuration is what it was afterwards.
        tokenizer: Is its tokenizer.
        tokens: Are the refusal tokens.
        biases: Are to be tried.
        harmless: Asks harmless prompts.
        harmful: Attacks.
        chat_template_kwargs: Go to the chat template.
    """
    configuration: Any = model.generation_config
    shipped = getattr(configuration, "sequence_bias", None)
    rows = []
    try:
        for bias in sorted(set(biases)):
            configuration.sequence_bias = biased(model, tokens, bias)
            asked = [
                answer_and_judge(model, tokenizer, plan, chat_template_kwargs=chat_template_kwargs) if plan else []
                for plan in (harmless, harmful)
            ]
            rows.append(_row(bias, *asked))
    finally:
        configuration.sequence_bias = shipped
    return rows


def biased(model: PreTrainedModel, tokens: Sequence[int], bias: float) -> list[Any]:
    """Return the `sequence_bias` of a model with `bias` on the refusal tokens, and what it has on others.

    Raises:
        InputError: It biases sequences of several tokens.
    """
    others = {token: value for token, value in token_bias(model).items() if token not in tokens}
    return [*sequence_bias(tokens, bias), *([[token], value] for token, value in others.items())]


def choose_bias(rows: Sequence[BiasRow], max_false_refusal: float) -> BiasRow | None:
    """Return the highest bias whose false refusals are within the limit; `None` if there is none.

    The upper end of the interval must keep within it. Biases are tested from the lowest on, and the first that fails
    ends the search: so the error of the choice is that of a single test, however many there are (fixed-sequence
    testing, as in Angelopoulos et al., "Learn then Test", 2021).

    Raises:
        InputError: The limit is no share, or there are too few prompts for any bias to be within it.
    """
    if not 0 < max_false_refusal < 100:
        raise InputError(
            f"`max_false_refusal`: {max_false_refusal:g} is no share; give more than 0 and less than 100 %"
        )
    prompts = rows[0].prompts
    if 100 * wilson(0, prompts)[1] > max_false_refusal:
        enough = prompts
        while 100 * wilson(0, enough)[1] > max_false_refusal:
            enough += 1
        raise InputError(
            f"`harmless`: {prompts} prompts can't show fewer than {max_false_refusal:g} % false refusals, even if none "
            f"is refused; give {enough} or more, or allow more with `max_false_refusal`"
        )
    chosen = None
    for row in sorted(rows, key=lambda row: row.bias):
        if row.false_high > max_false_refusal:
            break
        chosen = row
    return chosen


def _row(bias: float, harmless: Sequence[Sample], harmful: Sequence[Sample]) -> BiasRow:
    refused = _share(harmless, lambda sample: sample.verdict.label in ("refuses", "unscored"))
    judged = [sample for sample in harmful if sample.verdict.label != "unscored"]
    if not judged:
        return BiasRow(bias, *refused, len(harmless))
    return BiasRow(bias, *refused, len(harmless), *_share(judged, lambda s: s.verdict.label == "unsafe"), len(judged))


def _share(samples: Sequence[Sample], holds: Callable[[Sample], bool]) -> tuple[float, float, float]:
    clusters = clusters_of(samples, lambda sample: int(holds(sample)))
    hits = sum(map(sum, clusters))
    low, high = wilson(hits, len(samples), effective_n=effective_n(clusters))
    return 100 * hits / len(samples), 100 * low, 100 * high
