"""Refusal token: a control token before every answer says whether it refuses, and a threshold decides at inference.

Source: Jain et al., "Refusal Tokens: A Simple Way to Calibrate Refusals in Large Language Models" (arXiv 2412.06748):
[refuse] or [respond] begins every response in ordinary fine-tuning; at inference the model refuses if P([refuse]) is at
least a threshold.

The threshold t is written where generation reads it: `generation_config.json` holds a `sequence_bias` of log((1 − t) /
t) on the refusing token, so that greedy decoding chooses between the two tokens at t instead of 0.5. derta's decoding
and transformers' `generate` read it; vLLM is told with `logit_bias`.

Different here: one token for all refusals, not one a category; the tokens are new ones at the end of the vocabulary,
and t = 0.5 (no bias) by default.
"""

import math
from dataclasses import replace
from typing import Any, cast

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from derta.errors import InputError
from derta.tokens.encoder import EncodedExample
from experiments.baselines.base import Baseline, Setting, register_baseline
from experiments.baselines.sequences import TokenSequence
from experiments.baselines.trainer import BaselineTrainer

REFUSE, RESPOND = TOKENS = ("<refuse>", "<respond>")


class RefusalToken(BaselineTrainer):
    """Trains on responses that begin with a control token."""

    def __init__(self, setting: Setting) -> None:
        threshold: float = setting.constants["threshold"]
        if not 0 < threshold < 1:
            raise InputError(f"`constants` threshold: {threshold} is not between 0 and 1")
        if setting.options.model.use_peft:
            raise InputError("use_peft: refusal-token adds tokens, whose embeddings LoRA leaves alone; leave it out")
        super().__init__(setting)
        if threshold != 0.5:
            bias = math.log((1 - threshold) / threshold)
            self.model.generation_config.sequence_bias = [[[self._begins["safe"]], bias]]

    def prepare_tokenizer(self, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> PreTrainedTokenizerBase:
        """Add the two tokens to the vocabulary and the model."""
        tokenizer.add_tokens(list(TOKENS), special_tokens=True)
        if len(tokenizer) > cast(Any, model).get_input_embeddings().weight.shape[0]:
            model.resize_token_embeddings(len(tokenizer))
        refuse, respond = (cast(int, tokenizer.convert_tokens_to_ids(token)) for token in TOKENS)
        self._begins: dict[str, int] = {"safe": refuse, "helpful": respond}
        return tokenizer

    def sequences(self, example: EncodedExample, draws: np.random.Generator) -> list[TokenSequence]:
        """Return the response behind its control token."""
        return [
            replace(each, tokens=[*each.tokens[: each.begin], self._begins[each.part], *each.tokens[each.begin :]])
            for each in super().sequences(example, draws)
        ]


register_baseline(
    Baseline(
        "refusal-token",
        "a control token before every answer, thresholded at inference",
        "arXiv 2412.06748",
        RefusalToken,
        {"threshold": 0.5},
    )
)
