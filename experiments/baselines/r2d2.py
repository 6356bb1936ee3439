"""R2D2-like adversarial training: away from the target and toward refusal, against suffixes that GCG keeps current.

Source: Mazeika et al., "HarmBench" (arXiv 2402.04249), its Robust Refusal Dynamic Defense.

    L = L_SFT + 0.5 · L_away + 0.5 · L_toward,
    L_away = mean −log(1 − p(t)) over the tokens t of the target with log p(t) ≥ −5,

where the target is an affirmative beginning after prompt and suffix, L_toward the likelihood of the refusal after the
same, and L_SFT that of instruction data. Every step takes a few suffixes from a pool, moves each by 5 steps of GCG
against the model as it is, and trains on them; a fifth of the pool starts anew every 50 steps.

Different here: the pool has at most `pool` test cases, one a triple of one turn, and `cases` of them take part in a
step; the target is the affirmative beginning that derta's `gcg` attack aims at, the refusal the triple's safe response.
GCG is derta's own, with suffixes of `suffix_length` tokens and `width` candidates. L_SFT is ordinary fine-tuning on the
mixture, safe responses to plain prompts included, since the base refuses nothing; it and L_toward are means per token.
The search is paid beside the budget of steps. A run that was interrupted resumes with a new pool: its later steps are
not those of an unbroken run.
"""

import random
from typing import Any, cast

import torch

from derta.data.arrow import canonical, examples_of
from derta.errors import InputError
from derta.evaluation.attacks.base import AttackContext, Search, Weights
from derta.evaluation.attacks.gcg import Descent
from derta.evaluation.attacks.phrases import ENGLISH, organism_phrases
from derta.evaluation.attacks.target_loss import target_tokens
from derta.generation import first_tokens
from derta.generation.decoding import evaluating
from derta.generation.loading import world_of
from derta.tokens.encoder import EncodedExample
from experiments.baselines.base import Baseline, Setting, register_baseline
from experiments.baselines.sequences import Part, SequenceDataset, TokenSequence, collate, is_target, target_log_probs
from experiments.baselines.trainer import BaselineTrainer


def away_loss(log_probs: torch.Tensor, mask: torch.Tensor, floor: float) -> torch.Tensor:
    """Return the mean of −log(1 − p) over the tokens of `mask` whose log p is `floor` or more; 0 if there are none."""
    kept = mask & (log_probs >= floor)
    likely = log_probs[kept].clamp(max=-1e-6)  # log(1 − p) of a certain token is infinite
    return -torch.log(-torch.expm1(likely)).sum() / kept.sum().clamp(min=1)


class R2D2(BaselineTrainer):
    """Trains against a pool of suffixes that follow the model."""

    def __init__(self, setting: Setting) -> None:
        if setting.options.model.use_peft:
            raise InputError("use_peft: r2d2's search reads the whole model's gradients; leave it out")
        super().__init__(setting)
        world = world_of(str(setting.options.model.model_name_or_path))
        tokenizer: Any = self.processing_class
        self._context = AttackContext(
            ENGLISH if world is None else organism_phrases(world),
            lambda text, count: first_tokens(tokenizer, text, count),
            search=Search(gcg_length=self.constants["suffix_length"], gcg_width=self.constants["width"]),
        )
        self._draw = random.Random(self.args.seed)
        prompts = {
            example.origin: example.prompt[0]["content"]
            for example in examples_of(canonical(setting.train_data, "train_data").to_dict())
            if example.is_triple and len(example.prompt) == 1
        }
        encoded = cast(SequenceDataset, self.train_dataset).encoded
        known = [(index, prompts[origin]) for index, origin in enumerate(encoded["origin"]) if origin in prompts]
        if not known:
            raise InputError("train_data: r2d2 needs triples whose prompt is one turn, and there is none")
        self._cases = self._draw.sample(known, min(len(known), self.constants["pool"]))
        self._pool: dict[int, Descent] = {}

    def loss(self, model: Any, batch: dict[str, Part]) -> torch.Tensor:
        """Return R2D2's loss."""
        cases = self._attacked(model)
        toward, away = target_log_probs(model, cases["toward"]), target_log_probs(model, cases["away"])
        away_term = away_loss(away, is_target(cases["away"]), self.constants["away_floor"])
        toward_term = -toward.sum() / is_target(cases["toward"]).sum()
        adversarial = self.constants["away"] * away_term + self.constants["toward"] * toward_term
        total: torch.Tensor = super().loss(model, batch) + adversarial
        return total

    def _attacked(self, model: Any) -> dict[str, Part]:
        """Move some test cases of the pool by a few steps of GCG, and return what is trained against them."""
        step = self.state.global_step
        if step and step % self.constants["reset_every"] == 0:
            anew = round(self.constants["reset_share"] * len(self._pool))
            for case in self._draw.sample(sorted(self._pool), anew):
                del self._pool[case]
        tokenizer: Any = self.processing_class
        weights = Weights(model, tokenizer, self.setting.config.chat_template_kwargs or None)  # type: ignore[arg-type]
        sequences = []
        for index, prompt in self._draw.sample(self._cases, min(self.constants["cases"], len(self._cases))):
            with evaluating(model):
                if index not in self._pool:
                    self._pool[index] = Descent(weights, self._context, prompt, random.Random(self._draw.random()))
                descent = self._pool[index]
                for _ in range(self.constants["gcg_steps"]):
                    descent.step()
            context = descent.slot.context(descent.suffix)
            target = target_tokens(weights, self._context.ask(prompt), self._context.phrases.affirmative(prompt))
            example = EncodedExample(**cast(SequenceDataset, self.train_dataset).encoded[index])
            sequences.append(TokenSequence("toward", context + example.chosen, len(context)))
            sequences.append(TokenSequence("away", context + target, len(context)))
        return cast(dict[str, Part], self._prepare_inputs(cast(Any, collate([sequences]))))


register_baseline(
    Baseline(
        "r2d2",
        "fine-tuning, away from and refusing at suffixes that GCG keeps current",
        "arXiv 2402.04249",
        R2D2,
        {
            "away": 0.5,
            "toward": 0.5,
            "away_floor": -5.0,
            "pool": 180,
            "cases": 8,
            "gcg_steps": 5,
            "width": 32,
            "suffix_length": 3,
            "reset_share": 0.2,
            "reset_every": 50,
        },
    )
)
