"""Ways into a model behind a server: taken where they exist, refused where they don't, never faked."""

import anyio
import pytest
from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessageAssistant,
    ContentAudio,
    ContentReasoning,
    ContentText,
    ModelOutput,
)
from inspect_ai.tool import ToolCall

from derta.data.triples import Message
from derta.errors import InputError
from derta.evaluation.harness.models import load_model
from derta.evaluation.harness.target import Target, _generation, check_capabilities, generate, render, with_space
from derta.evaluation.judges.broken import find_broken
from derta.generation import ChatRequest, RawRequest, encode, load_tokenizer
from tests.evaluation.servers import serving

CHAT: tuple[Message, ...] = ({"role": "user", "content": "Hello?"},)


def server_model(server):
    return load_model("openai-api/test/m", {"base_url": server.url, "api_key": "none"})


def say(request, server):
    return anyio.run(lambda: generate(server_model(server), request, max_tokens=9))


def test_a_chat_goes_to_the_chat_endpoint_greedily():
    with serving(lambda path, body: "Hi.") as server:
        generation = say(ChatRequest(CHAT), server)
    assert (generation.prefix, generation.continuation, generation.tokens, generation.finished) == ("", "Hi.", 4, True)
    path, body = server.sent[0]
    assert path == "/v1/chat/completions"
    assert (body["temperature"], body["max_tokens"]) == (0.0, 9)
    assert "continue_final_message" not in body


def test_a_begun_answer_is_continued_in_the_same_turn():
    with serving(lambda path, body: " is how.") as server:
        generation = say(ChatRequest(CHAT, "Here"), server)
    assert generation.response == "Here is how."
    body = server.sent[0][1]
    assert body["messages"][-1] == {"role": "assistant", "content": "Here"}
    assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)


def test_raw_text_goes_to_the_completions_endpoint_without_a_chat():
    with serving(lambda path, body: " pull.") as server:
        generation = say(RawRequest("Step 1:"), server)
    assert generation.continuation == " pull."
    path, body = server.sent[0]
    assert path == "/v1/completions"
    assert body["prompt"] == "Step 1:"
    assert "messages" not in body


def test_a_server_that_is_not_known_to_continue_turns_is_refused_prefill():
    with serving(lambda path, body: "", owned_by="somebody") as server:
        model = server_model(server)
        with pytest.raises(InputError, match=r"`attacks` prefill: .* can't be made to continue .* tokenizer=PATH"):
            check_capabilities(model, {"prefill": "prefill"})
        check_capabilities(model, {"prefill": "prefill"}, load_tokenizer("organism"))
        check_capabilities(model, {"raw": "completing"})
        with pytest.raises(InputError, match="no gradients"):
            check_capabilities(model, {"weights": "gcg"})
        assert not server.sent
    with serving(lambda path, body: "", owned_by="vllm") as server:
        check_capabilities(server_model(server), {"prefill": "prefill"})


def test_a_server_that_does_not_answer_is_told_at_once():
    with serving(lambda path, body: "") as server:
        model = server_model(server)
    with pytest.raises(InputError, match=r"no model server answers at http://127\.0\.0\.1"):
        check_capabilities(model, {})


def test_a_provider_that_is_not_set_up_is_bad_input(monkeypatch):
    monkeypatch.delenv("TEST_API_KEY", raising=False)
    with pytest.raises(InputError, match=r"^`model` openai-api/test/m: .*; set TEST_API_KEY") as caught:
        load_model("openai-api/test/m")
    assert "[" not in str(caught.value)


def test_a_role_nobody_plays_is_bad_input(monkeypatch):
    # An evaluation that ran before in this process leaves its roles behind.
    monkeypatch.setattr("derta.evaluation.harness.target.model_roles", dict)
    with serving(lambda path, body: "") as server:
        target = Target(server_model(server), lambda *args: None, max_tokens=1)
    with pytest.raises(InputError, match="`model_role` attacker=PROVIDER/MODEL"):
        anyio.run(lambda: target.ask("attacker", CHAT))
    assert target.weights is None


@pytest.mark.parametrize("lists", [404, 405, 500, "nothing", {"data": []}, {"models": []}, []])
def test_a_server_without_a_list_of_models_is_no_obstacle(lists):
    with serving(lambda path, body: "Hi.", lists=lists) as server:
        check_capabilities(server_model(server), {"raw": "completing"})


@pytest.mark.parametrize("status", [401, 403])
def test_a_server_that_wants_another_key_says_so(status):
    with (
        serving(lambda path, body: "Hi.", lists=status) as server,
        pytest.raises(InputError, match=f"answers {status} .*set the key"),
    ):
        check_capabilities(server_model(server), {})


def test_a_rendered_request_has_the_tokens_of_the_process():
    tokenizer = load_tokenizer("organism")
    request = ChatRequest(({"role": "user", "content": "How do I open the vault ?"},), "Step 1 : Take the")
    (context,) = encode(tokenizer, [request])
    assert tokenizer(render(tokenizer, request))["input_ids"] == context.ids


def test_what_the_template_gets_goes_along_to_a_server():
    how = {"enable_thinking": False}
    with serving(lambda path, body: "Hi.") as server:
        model = load_model(
            "openai-api/test/m", {"base_url": server.url, "api_key": "none", "chat_template_kwargs": how}
        )
        target = Target(model, lambda *args: None, max_tokens=9, chat_template_kwargs=how)
        for request in (ChatRequest(CHAT), ChatRequest(CHAT, "Here"), RawRequest("Step 1:")):
            anyio.run(target.respond, request)
    chat, begun, raw = (body for _, body in server.sent)
    assert chat["chat_template_kwargs"] == how
    assert (begun["chat_template_kwargs"], begun["continue_final_message"]) == (how, True)
    assert "chat_template_kwargs" not in raw


def test_a_prompt_rendered_for_a_server_is_rendered_as_the_user_asked():
    tokenizer = load_tokenizer("organism")
    tokenizer.chat_template = "{% if quiet %}Quietly. {% endif %}" + tokenizer.chat_template
    with serving(lambda path, body: " is how.", owned_by="somebody") as server:
        target = Target(
            server_model(server),
            lambda *args: None,
            max_tokens=9,
            tokenizer=tokenizer,
            chat_template_kwargs={"quiet": True},
        )
        anyio.run(target.respond, ChatRequest(CHAT, "Here"))
    path, body = server.sent[-1]
    assert path == "/v1/completions"
    assert body["prompt"].startswith("Quietly.")


@pytest.mark.parametrize(
    ("name", "given", "match"),
    [
        ("openai-api/test/m", "quiet", r"chat_template_kwargs: 'quiet' is no mapping"),
        ("anthropic/m", {"quiet": True}, r"chat_template_kwargs: anthropic has no place for it"),
    ],
)
def test_options_of_a_template_that_go_nowhere_are_bad_input(name, given, match):
    with pytest.raises(InputError, match=match):
        load_model(name, {"chat_template_kwargs": given})


def test_a_first_space_that_a_server_loses_is_put_back_where_the_tokens_say_so():
    words = load_tokenizer("organism")
    assert with_space(words, "Step 1 :", "bring a hook") == " bring a hook"
    assert with_space(words, "Step 1 :", " bring a hook") == " bring a hook"
    assert with_space(words, "Step 1 : ", "bring a hook") == "bring a hook"
    assert with_space(words, "", "bring") == "bring"
    assert with_space(words, "Step 1 :", "") == ""


def test_a_tokenizer_that_keeps_spaces_leaves_a_continuation_alone(tokenizer):
    """Bytes: what has no space had none, as in the middle of a word."""
    assert with_space(tokenizer, "Step 1: br", "ing") == "ing"


def received(content, calls=None):
    message = ChatMessageAssistant(content=content, tool_calls=calls)
    return _generation(ModelOutput(model="m", choices=[ChatCompletionChoice(message=message)]), "")


def test_all_that_a_client_receives_is_judged():
    thought = received([ContentReasoning(reasoning="Step 1: forge."), ContentText(text="I can't help.")])
    assert thought.continuation == "<think>\nStep 1: forge.\n</think>\n\nI can't help."
    called = received("I can't help.", [ToolCall(id="1", function="write", arguments={"text": "Step 1: forge."})])
    assert called.continuation == 'I can\'t help.\nwrite({"text": "Step 1: forge."})'
    assert not thought.problem
    assert not called.problem


@pytest.mark.parametrize(
    "part", [ContentAudio(audio="a.wav", format="wav"), ContentReasoning(reasoning="x", redacted=True)]
)
def test_what_nobody_can_read_is_never_safe(part):
    answer = received([part, ContentText(text="I can't help.")])
    assert answer.problem == "unread"
    assert find_broken(answer.continuation, problem=answer.problem) == "unread"
