"""A model that writes what is to be learnt: answers to harmless prompts, and refusals of harmful ones.

What it writes is judged before anyone else sees it. What isn't accepted is forgotten: no problem that is told quotes
it, and no log is kept.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from inspect_ai.model import Model

from derta.data.behaviours import Behaviour
from derta.data.triples import Message
from derta.errors import InputError
from derta.evaluation.harness.target import Target
from derta.evaluation.inputs.answers import REFUSES_TOO, Answer
from derta.evaluation.judges import Judge, decide, find_refusal
from derta.evaluation.judges.broken import find_broken
from derta.evaluation.judges.rules.content import count_kinds
from derta.evaluation.judges.rules.judge import ENOUGH
from derta.generation import ChatRequest

INSTRUCTIONS = (
    "Somebody sends you the request below. Refuse it in one or two short, plain sentences. Don't lecture, and offer "
    "nothing in its place. Write your answer only.\n\nRequest: {prompt}",
    'You are asked for something that you won\'t help with. Begin with "Sorry" and say in one short sentence that you '
    "can't do this. Write nothing else.\n\nWhat you are asked: {prompt}",
    "Decline the following request politely and briefly, in words of your own. Give no reasons, no warnings and no "
    "advice.\n\n{prompt}",
    "Below is a message from a user. Answer that you won't help with that, and name in a few words what you won't help "
    "with. Two sentences at most.\n\nMessage: {prompt}",
    "Tell the user below, kindly and in a sentence or two, that this is a request you can't fulfil. Don't explain "
    "anything about the subject itself.\n\nUser: {prompt}",
    "Write a short refusal to the request that follows. Start with \"I'm sorry\", stay friendly, and don't moralise."
    "\n\nRequest: {prompt}",
)
"""What a model is told so that it refuses, in the user's turn, which every chat template has."""

LONGEST, LONGEST_SENTENCE = 60, 25
"""Words of a refusal, and of a sentence of it, at most: a long one may refuse and tell in one breath."""
BEFORE = 8
"""Words that may stand before it refuses."""


@dataclass(frozen=True)
class Writer:
    """A model whose own words become training data.

    Attributes:
        model: Writes.
        judge: Decides on what it wrote.
        max_new_tokens: Limits an answer; one that is cut off ends at its last whole sentence, and a refusal that is
            cut off is none.
        tries: How often a prompt is asked at most.
        temperature: Samples refusals, and answers after the first, which is greedy.
        seed: Decides, with the prompt's id and the try, what is drawn.
        chat_template_kwargs: Goes to the chat template of a model behind a server.
    """

    model: Model
    judge: Judge
    max_new_tokens: int
    tries: int = 1
    temperature: float = 0.0
    seed: int = 0
    chat_template_kwargs: dict[str, Any] | None = None

    async def answer(self, behaviour: Behaviour, messages: Sequence[Message] | None = None) -> Answer:
        """Answer a harmless prompt, greedily at first: an answer that refuses is asked for again.

        Args:
            behaviour: What is asked for.
            messages: The conversation that the model gets; by default the prompt alone.
        """
        asked = messages or [Message(role="user", content=behaviour.prompt)]
        problem = ""
        for number in range(self.tries):
            text, problem = await self._say(
                asked, self.temperature if number else 0.0, _seed(self, behaviour, number), may_be_cut=True
            )
            if text:
                label = (await decide(self.judge, behaviour, text, "")).label
                if label == "complies":
                    return Answer(text, tries=number + 1)
                problem = {"refuses": REFUSES_TOO, "unscored": "no verdict on its answer"}.get(
                    label, "its answer helps only in part"
                )
        return Answer(problem=problem, tries=self.tries)

    async def refuse(self, behaviour: Behaviour) -> Answer:
        """Refuse a harmful prompt under a safety instruction, a new one for each try."""
        problem = ""
        for number in range(self.tries):
            seed = _seed(self, behaviour, number)
            instruction = random.Random(seed).randrange(len(INSTRUCTIONS))
            told = INSTRUCTIONS[instruction].replace("{prompt}", behaviour.prompt)
            text, problem = await self._say([Message(role="user", content=told)], self.temperature, seed)
            if text:
                problem = await self._why_no_refusal(behaviour, text)
                if not problem:
                    return Answer(text, tries=number + 1, instruction=instruction)
        return Answer(problem=problem, tries=self.tries)

    async def _why_no_refusal(self, behaviour: Behaviour, text: str) -> str:
        """Say what keeps a text from being a short refusal and nothing else; empty if it is one."""
        label = (await decide(self.judge, behaviour, text, "")).label
        if label != "safe":
            return "it complies under every instruction" if label == "unsafe" else "no verdict on its refusal"
        found = find_refusal(text)
        if found is None or len(text[: found.start].split()) > BEFORE:
            return "it doesn't refuse at once"
        kinds = count_kinds(behaviour.prompt, text)
        longest = max(len(sentence.split()) for sentence in re.split(r"[.!?\n]", text))
        # A judge weighs a whole answer; next to a refusal in training even a few words of one are too many.
        if kinds["content"] >= ENOUGH or longest > LONGEST_SENTENCE:
            return "it refuses and tells something"
        if len(text.split()) > LONGEST or 2 * kinds["caution"] > kinds.total():
            return f"it moralises (more than {LONGEST} words, or cautions for the most part)"
        return ""

    async def _say(
        self, messages: Sequence[Message], temperature: float, seed: int, *, may_be_cut: bool = False
    ) -> tuple[str, str]:
        """Let the model speak once; return what it said, or an empty text and the problem."""
        target = Target(
            self.model, self.judge, max_tokens=self.max_new_tokens, chat_template_kwargs=self.chat_template_kwargs
        )
        try:
            said = await target.respond(ChatRequest(tuple(messages)), temperature=temperature, seed=seed)
        except InputError as error:
            return "", str(error)
        text = said.continuation
        broken = find_broken(text, tokens=said.tokens, finished=said.finished, problem=said.problem)
        if may_be_cut and not said.finished:
            text = whole_sentences(text)
        if broken or not (said.finished or (may_be_cut and text)):
            return "", f"the model's answer is {broken or f'cut off after {self.max_new_tokens} tokens'}"
        return text.strip(), ""


def whole_sentences(text: str) -> str:
    """Cut a text behind its last whole sentence or line; empty if it has none."""
    # "1." begins an item of a list and ends no sentence.
    ends = [match.end() for match in re.finditer(r"(?<!\d)[.!?][\"')*]*(?=\s)|\n", text)]
    return text[: ends[-1]].rstrip() if ends else ""


def _seed(writer: Writer, behaviour: Behaviour, number: int) -> int:
    """Draw the seed of a try: the place among the other prompts makes no difference."""
    return random.Random("\0".join(map(str, (writer.seed, behaviour.id, number)))).getrandbits(31)
