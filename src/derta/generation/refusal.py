"""The refusal token of a model, and how likely it is: what a guard and a bias act on."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from derta.errors import InputError
from derta.files import weights_digest
from derta.guard.calibration import Calibration
from derta.names import model_path
from derta.run_identity import read_identity
from derta.tokens.encoder import Encoder, RefusalForm
from derta.tokens.refusal_tokens import refusal_tokens

_UNLIMITED = 2**62


def refusal_ids(name: str, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Return the tokens that count as a refusal: every spelling of what the model was tuned to say.

    Training spells the refusal token as the text before it calls for; the other spellings get next to no probability
    there, so their sum is the same, and whoever sees text alone needn't know which one is right.

    Args:
        name: the model, whose `derta.json` says what it was tuned with; "Sorry" if there is none.
        tokenizer: its tokenizer.

    Raises:
        InputError: The refusal text is no single token of this tokenizer.
    """
    settings: dict[str, Any] = (read_identity(Path(model_path(name))) or {}).get("settings", {})
    texts = settings.get("refusal_text") or ["Sorry"]
    texts = [texts] if isinstance(texts, str) else texts
    form: RefusalForm = "bare" if settings.get("refusal_form") == "bare" else "set"
    return refusal_tokens(Encoder(tokenizer, _UNLIMITED), texts, form).all


def check_guard(guard: Calibration, name: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """Check that a guard was calibrated for this model.

    Raises:
        InputError: It was calibrated for other files, or names tokens that this tokenizer spells otherwise.
    """
    mend = "calibrate one with derta guard calibrate"
    spelt = tuple(str(tokenizer.decode([token])) if token < len(tokenizer) else "" for token in guard.tokens)
    if spelt != guard.spellings:
        raise InputError(f"`guard`: its refusal tokens are {guard.spellings}, which {name} spells {spelt}; {mend}")
    files = weights_digest(Path(model_path(name)))
    if guard.files is not None and files is not None and guard.files != files:
        raise InputError(f"`guard`: was calibrated for other weights than {name} holds; {mend}")


def refusal_mass(logits: torch.Tensor, ids: Sequence[int]) -> torch.Tensor:
    """Return the probability of the tokens `ids` together, in float32: `logits` without their last dimension."""
    # One softmax is a fraction of two logsumexp where a token takes a millisecond.
    chances = logits.float().softmax(-1)
    if len(ids) == 1:
        return chances[..., ids[0]]
    return chances[..., list(ids)].sum(-1)


def token_bias(model: PreTrainedModel) -> dict[int, float]:
    """Return what a checkpoint's generation configuration adds to the logits of tokens: its `sequence_bias`.

    Raises:
        InputError: It biases sequences of several tokens, which isn't done here.
    """
    given: Any = getattr(model.generation_config, "sequence_bias", None) or []
    pairs = given.items() if isinstance(given, Mapping) else given
    bias = {}
    for ids, value in pairs:
        if len(ids) != 1:
            raise InputError(
                f"generation_config.json: sequence_bias: {list(ids)} is a sequence of several tokens; derta adds to "
                "single tokens only"
            )
        bias[int(ids[0])] = float(value)
    return bias


def sequence_bias(tokens: Sequence[int], bias: float) -> list[Any]:
    """Return the `sequence_bias` of a generation configuration that adds `bias` to each of the tokens."""
    return [[[token], bias] for token in tokens]
