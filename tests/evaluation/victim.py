"""A model in this process as an interactive attack sees it, without any framework around it."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, cast

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from derta.data.behaviours import Behaviour
from derta.data.triples import Message
from derta.errors import InputError
from derta.evaluation.attacks.base import Attempt, Role, Weights
from derta.evaluation.judges import Judge, Verdict, decide
from derta.generation import Generation, Request, generate

Helper = Callable[[Sequence[Message]], Awaitable[str]]


class LocalVictim:
    """A loaded model, a judge, and helper models by role."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        judge: Judge,
        *,
        helpers: Mapping[Role, Helper] | None = None,
        max_new_tokens: int = 256,
        chat_template_kwargs: dict[str, Any] | None = None,
    ) -> None:
        self.weights: Weights | None = Weights(model, tokenizer, chat_template_kwargs)
        self._judge = judge
        self._helpers = dict(helpers or {})
        self._max_new_tokens = max_new_tokens

    async def respond(self, request: Request, *, temperature: float = 0.0, seed: int = 0) -> Generation:
        """Answer one request."""
        weights = self.weights
        (generation,) = generate(
            weights.model,
            weights.tokenizer,
            [request],
            self._max_new_tokens,
            chat_template_kwargs=cast("dict[str, Any] | None", weights.chat_template_kwargs),
            temperature=temperature,
            seed=seed,
        )
        return generation

    async def judge(self, behaviour: Behaviour, attempt: Attempt, generation: Generation) -> Verdict:
        """Decide on a response; a judge that fails gives `unscored`."""
        return await decide(
            self._judge, behaviour, attempt.decode(generation.response), attempt.decode(generation.prefix)
        )

    async def ask(self, role: Role, messages: Sequence[Message]) -> str:
        """Ask a helper model."""
        if role not in self._helpers:
            raise InputError(f"`model_role`: this attack needs a model in the role {role!r}")
        return await self._helpers[role](messages)
