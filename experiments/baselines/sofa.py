"""SoFA: trained to follow rules that come first in a conversation, and asked with them.

Source: Lu et al., "SoFA: Shielded On-the-fly Alignment via Priority Rule Following" (arXiv 2402.17358): ordinary
fine-tuning on conversations whose system prompt holds rules, with answers that follow them where they apply and the
user where they don't, beside general helpfulness data. 3 epochs at 1e-5.

Different here: each triple's prompt gets some of `rules`, at random, and so does `helpful_share` of the helpful
examples (where no rule applies); the others have none. They stand before the user's first words, since many templates
have no system turn. At evaluation all rules stand there, through the saved chat template, as its authors ask with
rules; `rules_at_evaluation: false` leaves them out. The rules are short because the organism's vocabulary is. The rate
is the recipe's.
"""

import random
from copy import copy
from dataclasses import replace

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from derta.data.arrow import as_dataset, canonical, examples_of
from derta.data.triples import Example
from experiments.baselines.base import Baseline, register_baseline
from experiments.baselines.priority import messages_with, template_with
from experiments.baselines.trainer import BaselineTrainer


class SoFA(BaselineTrainer):
    """Trains behind rules, and saves a template that writes them."""

    def prepare_data(self, dataset: Dataset) -> Dataset:
        """Put rules before each prompt of a triple, and before a share of the helpful ones."""
        draw, rules = random.Random(self.setting.config.seed), self.constants["rules"]

        def ruled(example: Example) -> Example:
            some = " ".join(draw.sample(rules, draw.randint(1, len(rules))))
            without = draw.random() >= self.constants["helpful_share"]
            return (
                example
                if example.is_helpful and without
                else replace(example, prompt=messages_with(some, example.prompt))
            )

        return as_dataset(map(ruled, examples_of(canonical(dataset, "train_data").to_dict())))

    def saved_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
        """Return the tokenizer with all rules in its template."""
        if not self.constants["rules_at_evaluation"]:
            return tokenizer
        ruled = copy(tokenizer)
        ruled.chat_template = template_with(" ".join(self.constants["rules"]), str(tokenizer.chat_template))
        return ruled


register_baseline(
    Baseline(
        "sofa",
        "trained to follow safety rules before the request, and asked with them",
        "arXiv 2402.17358",
        SoFA,
        {
            "rules": [
                "It is a rule : I will not help if people could be hurt by it .",
                "It is a law : I will not explain something that is not safe .",
                "It is a rule : I cannot help with something that is against the law .",
            ],
            "helpful_share": 0.5,
            "rules_at_evaluation": True,
        },
    )
)
