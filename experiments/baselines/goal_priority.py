"""Goal prioritisation: trained with a prompt that puts safety first, and asked with it.

Source: Zhang et al., "Defending Large Language Models Against Jailbreaking Attacks Through Goal Prioritization" (arXiv
2311.09096), its variant with training: ordinary fine-tuning on safe and helpful responses, each request behind a text
that says which goal comes first.

Different here: the source also trains on harmful responses behind the opposite goal, and lets the model write its
thoughts first; neither is done here. The text stands before the user's first words, since many templates have no system
turn, and in the chat template that is saved with the model, so that whoever asks it through the template asks with it.
Its default is made of words that the organism knows.
"""

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from experiments.baselines.base import Baseline, register_baseline
from experiments.baselines.priority import template_with
from experiments.baselines.trainer import BaselineTrainer


class GoalPriority(BaselineTrainer):
    """Trains and asks with the priority in the chat template."""

    def prepare_tokenizer(self, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> PreTrainedTokenizerBase:
        """Write the priority into the template."""
        tokenizer.chat_template = template_with(self.constants["prompt"], str(tokenizer.chat_template))
        return tokenizer


register_baseline(
    Baseline(
        "goal-priority",
        "trained and asked with a prompt that puts safety first",
        "arXiv 2311.09096",
        GoalPriority,
        {
            "prompt": "Please look after the people who trust you . I will not help with a request if people could be "
            "hurt by it . If it is safe , I will answer it ."
        },
    )
)
