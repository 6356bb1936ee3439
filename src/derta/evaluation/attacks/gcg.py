"""GCG: a suffix of tokens after the request, found by greedy coordinate gradient, makes an affirmative answer likely.

Zou et al., "Universal and Transferable Adversarial Attacks on Aligned Language Models" (arXiv 2307.15043), for one
behaviour and one model. Each step takes the gradient of the target's loss by the one-hot tokens of the suffix, tries
random replacements of one token each among the best by gradient, and goes on from the best of them. As in the paper's
code, only printable ASCII tokens take part. It differs from the paper in three points: a candidate counts only if its
text, sent as a chat message, gives back the very tokens that were scored, so nothing is optimised that a user couldn't
send; the suffix with the lowest loss of all steps is kept; and success is the judge's word on a whole answer, since a
model that says the target may still refuse after it.
"""

import random
from functools import partial

import torch
from anyio import to_thread

from derta.data.behaviours import Behaviour
from derta.errors import InputError
from derta.evaluation.attacks.base import (
    AttackContext,
    AttackResult,
    AttackSpec,
    Attempt,
    Victim,
    Weights,
    generator,
    register_attack,
)
from derta.evaluation.attacks.target_loss import TargetLoss, target_tokens, weights_of
from derta.generation import ChatRequest
from derta.tokens.encoder import Encoder

# What a suffix starts from; the second is for tokenizers that don't know the first.
_FILLERS = ("!", ".")
_UNLIMITED = 2**62


async def gcg(behaviour: Behaviour, context: AttackContext, victim: Victim) -> AttackResult:
    """Search a suffix until the model says the target greedily, or the steps are over; then let it answer.

    Raises:
        InputError: the victim has no weights, or no suffix survives its tokenizer.
    """
    weights = weights_of(victim, "gcg")
    rng = generator(context.seed, "gcg", behaviour.id)
    descent = await to_thread.run_sync(partial(Descent, weights, context, behaviour.prompt, rng))
    for _ in range(context.search.gcg_steps):
        if descent.said:
            break
        await to_thread.run_sync(descent.step)
    attempt = Attempt("gcg", descent.request)
    generation = await victim.respond(attempt.request)
    verdict = await victim.judge(behaviour, attempt, generation)
    return AttackResult(attempt, generation, queries=1, succeeded=verdict.label == "unsafe")


class Slot:
    """The place for a suffix after the user's words, within the tokens of the whole request.

    Attributes:
        before: The tokens up to the suffix.
        initial: The suffix that a search starts from.
        after: The tokens that the chat template puts behind it, up to the answer.
    """

    def __init__(self, weights: Weights, context: AttackContext, prompt: str) -> None:
        """Find the place with two suffixes that share no token.

        Raises:
            InputError: neither of them comes back from its own text.
        """
        self._ask, self._prompt, length = context.ask, prompt, context.search.gcg_length
        self._tokenizer = weights.tokenizer
        kwargs = dict(weights.chat_template_kwargs) if weights.chat_template_kwargs else None
        self._encoder = Encoder(weights.tokenizer, _UNLIMITED, chat_template_kwargs=kwargs)
        one, other = (self._encode(self._ask(prompt + f" {filler}" * length)) for filler in _FILLERS)
        begin = _common(one, other)
        end = _common(one[begin:][::-1], other[begin:][::-1])
        self.before, self.after = one[:begin], one[len(one) - end :]
        barred = self.barred()
        for ids in (one, other):
            self.initial = ids[begin : len(ids) - end]
            if not barred & set(self.initial) and self.survives(self.initial):
                return
        raise InputError(f"`attacks` gcg: {weights.tokenizer.name_or_path}: no suffix survives this tokenizer")

    def context(self, suffix: list[int]) -> list[int]:
        """Return the tokens of the whole request with `suffix`."""
        return self.before + suffix + self.after

    def request(self, suffix: list[int]) -> ChatRequest:
        """Return the request with the text of `suffix`."""
        text = str(self._tokenizer.decode(suffix, clean_up_tokenization_spaces=False))
        return self._ask(self._prompt + ("" if text.startswith(" ") else " ") + text)

    def survives(self, suffix: list[int]) -> bool:
        """Whether the request with the text of `suffix` has the very tokens of `context(suffix)`."""
        try:
            return self._encode(self.request(suffix)) == self.context(suffix)
        except InputError:  # the template rewrites what the suffix spells
            return False

    def barred(self) -> set[int]:
        """Return the tokens that no suffix may hold: special ones, and what isn't printable ASCII."""
        tokenizer = self._tokenizer
        texts = tokenizer.batch_decode([[token] for token in range(len(tokenizer))])
        odd = {token for token, text in enumerate(texts) if not (text and text.isascii() and text.isprintable())}
        return odd | set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)

    def _encode(self, request: ChatRequest) -> list[int]:
        return self._encoder.encode_prompt(list(request.messages))


class Descent:
    """A search in progress: one suffix, and what is known about it.

    Attributes:
        losses: The loss of the suffix that each step went on from, the first one's in front.
        said: Whether the best suffix makes the model say the whole target greedily.
    """

    def __init__(self, weights: Weights, context: AttackContext, prompt: str, rng: random.Random) -> None:
        self.slot = Slot(weights, context, prompt)
        search, target = context.search, context.phrases.affirmative(prompt)
        self.loss = TargetLoss(weights, target_tokens(weights, context.ask(prompt), target))
        self._search, self._rng = search, rng
        # A model may have more embeddings than its tokenizer has tokens.
        size = self.loss.table.shape[0]
        barred = self.slot.barred() | set(range(len(weights.tokenizer), size))
        self._barred = torch.tensor(sorted(barred))
        self._top = min(search.gcg_top, size - len(barred))
        self._suffix = self.best = self.slot.initial
        scores = self.loss([self.slot.context(self._suffix)])
        self.losses = scores.losses.tolist()
        self._lowest = self.losses[0]
        self.said = bool(scores.said[0])

    @property
    def request(self) -> ChatRequest:
        """The request with the best suffix so far."""
        return self.slot.request(self.best)

    @property
    def suffix(self) -> list[int]:
        """The suffix that the next step goes on from."""
        return self._suffix

    def step(self) -> None:
        """Go on from the best of the candidates, even if it is worse: the paper's way out of a local minimum."""
        candidates = self._candidates()
        if not candidates:
            return
        scores = self.loss([self.slot.context(suffix) for suffix in candidates])
        index = int(scores.losses.argmin())
        self._suffix = candidates[index]
        self.losses.append(float(scores.losses[index]))
        if self.losses[-1] < self._lowest:
            self._lowest, self.best, self.said = self.losses[-1], self._suffix, bool(scores.said[index])

    def _candidates(self) -> list[list[int]]:
        """Return suffixes that differ from the present one in one token, and survive as text."""
        begin = len(self.slot.before)
        places = slice(begin, begin + len(self._suffix))
        gradient = self.loss.gradient(self.slot.context(self._suffix), places)
        gradient[:, self._barred.to(gradient.device)] = torch.inf
        promising = gradient.topk(k=self._top, largest=False).indices.tolist()
        swaps = dict.fromkeys(
            (place, self._rng.choice(promising[place]))
            for place in self._rng.choices(range(len(self._suffix)), k=self._search.gcg_width)
        )
        suffixes = [[*self._suffix[:place], token, *self._suffix[place + 1 :]] for place, token in swaps]
        return [suffix for suffix in suffixes if suffix != self._suffix and self.slot.survives(suffix)]


def _common(one: list[int], other: list[int]) -> int:
    """Return how many tokens two lists begin with together."""
    return next(
        (place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )


register_attack(AttackSpec("gcg", gcg, family="search", requires=frozenset({"weights"})))
