"""The `derta` provider of Inspect: the same answers as `derta.generation`, through three ways in."""

from typing import Any

import anyio
import pytest
from inspect_ai.model import ChatMessage, ChatMessageAssistant, ChatMessageUser, GenerateConfig, get_model

from derta.data.triples import Message
from derta.errors import InputError
from derta.evaluation.harness import provider
from derta.evaluation.harness.provider import RAW, to_messages, to_request
from derta.generation import ChatRequest, RawRequest, Request, generate, load_model
from derta.organism import behaviours

QUESTION = behaviours("harmful")[0].prompt
CHAT: tuple[Message, ...] = ({"role": "user", "content": QUESTION},)
REQUESTS: list[Request] = [
    ChatRequest(CHAT),
    ChatRequest(CHAT, "Sure , here is how to"),
    ChatRequest(({"role": "system", "content": "a"}, *CHAT, {"role": "assistant", "content": "b"}, *CHAT)),
    RawRequest("Here is how to open the vault . Step 1 :"),
    ChatRequest((*CHAT, {"role": "assistant", "content": "A whole answer, to be judged."})),
]


@pytest.mark.parametrize("request_", REQUESTS)
def test_a_request_survives_inspects_messages(request_):
    assert to_request(to_messages(request_)) == request_


def test_raw_text_stands_alone():
    with pytest.raises(InputError, match="single message"):
        to_request([ChatMessageUser(content="a", metadata=RAW), ChatMessageUser(content="b")])


def test_it_answers_as_the_library_does_and_continues_a_begun_turn():
    requests = [REQUESTS[0], REQUESTS[1], REQUESTS[3]]
    model, tokenizer = load_model("organism")
    expected = generate(model, tokenizer, requests, 48)

    async def answers():
        async with get_model("derta/organism", memoize=False) as inspected:
            outputs: list[Any] = [None] * len(requests)

            async def put(i):
                outputs[i] = await inspected.generate(to_messages(requests[i]), config=GenerateConfig(max_tokens=48))

            async with anyio.create_task_group() as group:
                for i in range(len(requests)):
                    group.start_soon(put, i)
            return outputs

    for output, wanted in zip(anyio.run(answers), expected, strict=True):
        assert output.completion == wanted.continuation
        assert output.usage.output_tokens == wanted.tokens
        assert output.stop_reason == ("stop" if wanted.finished else "max_tokens")


def test_log_probabilities_are_of_the_tokens_written():
    async def answer():
        async with get_model("derta/organism", memoize=False) as inspected:
            config = GenerateConfig(max_tokens=5, logprobs=True, top_logprobs=3)
            return await inspected.generate([ChatMessageUser(content=QUESTION)], config=config)

    content = anyio.run(answer).choices[0].logprobs.content
    assert len(content) == 5
    for each in content:
        assert len(each.top_logprobs) == 3
        # Greedy: the likeliest token is the one written.
        assert each.top_logprobs[0].logprob == pytest.approx(each.logprob)


def test_a_lookup_by_inspect_loads_no_weights(monkeypatch):
    monkeypatch.setattr(provider, "load_model", lambda *args: pytest.fail("loaded"))
    api = provider.DertaAPI("organism")
    assert api.max_connections() > 1
    anyio.run(api.aclose)


def test_an_unknown_option_is_refused():
    with pytest.raises(InputError, match="`model_arg` devise: no such option"):
        provider.DertaAPI("organism", devise="cpu")
    with pytest.raises(InputError, match="no such type"):
        provider.DertaAPI("organism", dtype="float31")


def test_an_assistant_message_in_the_middle_is_a_turn():
    messages: list[ChatMessage] = [
        ChatMessageUser(content="a"),
        ChatMessageAssistant(content="b"),
        ChatMessageUser(content="c"),
    ]
    request = to_request(messages)
    assert request.prefix == ""
    assert [message["role"] for message in request.messages] == ["user", "assistant", "user"]
