"""The guard between a client and a server, over the network of this machine."""

import json
import threading
import time
from typing import Any

import httpx
import openai
import pytest

from derta.guard.calibration import Calibration, Canary
from tests.guard.upstream import CALIBRATION, CALM, Upstream, guarded, words

LATE = [0.01, 0.01, 0.01, 0.01, 0.9, 0.01]
"""An alarm before the fifth token: two have left by then, with two held back."""
REFUSAL = CALIBRATION.refusal
CHAT = {"model": "m", "messages": [{"role": "user", "content": "How?"}]}
TEXT = {"model": "m", "prompt": "How?"}


def post(address, body, path=None, **headers):
    path = path or ("chat/completions" if "messages" in body else "completions")
    return httpx.post(f"{address}/v1/{path}", json=body, headers=headers, timeout=20)


def events(address, body, **headers):
    answer = post(address, {**body, "stream": True}, **headers)
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line]
    return [json.loads(line) if line != "[DONE]" else line for line in lines]


def text_of(found, index=0):
    choices = [c for e in found if isinstance(e, dict) for c in e.get("choices", []) if c["index"] == index]
    return "".join(c.get("text") or (c.get("delta") or {}).get("content") or "" for c in choices)


def reasons(found):
    return [
        c["finish_reason"] for e in found if isinstance(e, dict) for c in e.get("choices", []) if c["finish_reason"]
    ]


@pytest.mark.parametrize("body", [CHAT, TEXT])
def test_calm_answers_pass_unchanged(body):
    upstream = Upstream(CALM)
    with guarded(upstream) as (_, address):
        whole = post(address, body).json()
        stream = events(address, body)
    (choice,) = whole["choices"]
    text = choice["message"]["content"] if body is CHAT else choice["text"]
    assert text == text_of(stream) == "".join(words(6))
    assert choice["finish_reason"] == "stop"
    assert reasons(stream) == ["stop"]
    assert stream[-1] == "[DONE]"
    assert whole["usage"]["total_tokens"] == 9
    # The client asked for no log-probabilities; the server was asked for 20.
    assert choice["logprobs"] is None
    assert all(c["logprobs"] is None for e in stream[:-1] for c in e["choices"] if "logprobs" in c)
    assert upstream.sent[0]["top_logprobs" if body is CHAT else "logprobs"] == 20


@pytest.mark.parametrize("body", [CHAT, TEXT])
def test_a_late_refusal_leaks_nothing_that_was_held(body):
    with guarded(Upstream(LATE)) as (_, address):
        whole = post(address, body).json()
        stream = events(address, body)
        numbers = httpx.get(f"{address}/metrics").text
    lead = "\n\n"
    assert text_of(stream) == " word0 word1" + lead + REFUSAL
    assert reasons(stream) == ["content_filter"]
    assert stream[-1] == "[DONE]"
    (choice,) = whole["choices"]
    # What isn't streamed has leaked nothing: all of it is replaced.
    assert choice["finish_reason"] == "content_filter"
    assert (choice["message"]["content"] if body is CHAT else choice["text"]) == (
        REFUSAL if body is CHAT else lead + REFUSAL
    )
    assert 'derta_guard_requests_total{outcome="stopped"} 2.0' in numbers
    assert "derta_guard_streams 0.0" in numbers
    assert "word" not in numbers


def test_an_alarm_before_the_first_token_says_the_refusal_alone():
    with guarded(Upstream([0.9, *CALM])) as (_, address):
        assert text_of(events(address, CHAT)) == REFUSAL


def test_choices_are_guarded_each_for_itself():
    with guarded(Upstream(CALM, LATE, [0.9] * 6)) as (_, address):
        stream = events(address, {**CHAT, "n": 3})
        whole = post(address, {**CHAT, "n": 3}).json()
    assert [text_of(stream, index) for index in range(3)] == ["".join(words(6)), f" word0 word1\n\n{REFUSAL}", REFUSAL]
    assert [choice["finish_reason"] for choice in whole["choices"]] == ["stop", "content_filter", "content_filter"]


def test_the_clients_own_log_probabilities_are_honoured_and_no_others():
    with guarded(Upstream(CALM)) as (_, address):
        (chat,) = post(address, {**CHAT, "logprobs": True, "top_logprobs": 1}).json()["choices"]
        (text,) = post(address, {**TEXT, "logprobs": 2}).json()["choices"]
        bare = events(address, {**CHAT, "logprobs": True})
    assert [len(entry["top_logprobs"]) for entry in chat["logprobs"]["content"]] == [1] * 6
    assert [len(top) for top in text["logprobs"]["top_logprobs"]] == [2] * 6
    told = [c["logprobs"]["content"][0] for e in bare[:-1] for c in e["choices"] if c.get("logprobs")]
    assert [entry["token"] for entry in told] == words(6)
    assert all(entry["top_logprobs"] == [] for entry in told)


def test_known_fields_of_a_request_and_an_answer_pass():
    upstream = Upstream(CALM)
    more = {"stop": ["x"], "seed": 3, "temperature": 0.5}
    with guarded(upstream) as (_, address):
        stream = events(address, {**CHAT, **more, "stream_options": {"include_usage": True}}, authorization="Bearer k")
        assert httpx.get(f"{address}/v1/models").json()["data"][0]["id"] == "m"
        assert httpx.get(f"{address}/health").json() == {"status": "ok"}
        assert httpx.get(f"{address}/v1/embeddings").status_code == 404
    assert upstream.sent[0].items() >= more.items()
    assert upstream.headers[0]["authorization"] == "Bearer k"
    assert stream[-2]["usage"]["total_tokens"] == 9


@pytest.mark.parametrize("fault", ["no logprobs", "no top", "nan", "adds up", "certain", "ids", "nicknames"])
@pytest.mark.parametrize("body", [CHAT, TEXT])
def test_a_server_that_lies_or_hides_its_log_probabilities_passes_nothing(fault, body):
    with guarded(Upstream(CALM, fault=fault)) as (_, address):
        whole = post(address, body)
        stream = events(address, body)
    assert whole.status_code == 502
    assert "stopped by the guard" in whole.json()["error"]["message"]
    assert text_of(stream) == ""
    assert stream[-1]["error"]["type"] == "guard_error"
    assert "word" not in whole.text


def test_a_refusal_token_that_is_not_named_counts_with_its_bound():
    # " Sorry" has 0.4 and is hidden: what is named leaves 0.4 of 1, and the least likely of the others has 0.06.
    with guarded(Upstream([0.4] * 6, fault="hides")) as (_, address):
        assert reasons(events(address, CHAT)) == ["stop"]
    # With one token named, it is known only that p(refuse) is at most what that leaves.
    with guarded(Upstream([0.01] + [0.3] * 5), top_logprobs=1) as (_, address):
        assert reasons(events(address, CHAT)) == ["stop"]
    with guarded(Upstream([0.01] + [0.5] * 5, fault="hides"), top_logprobs=1) as (_, address):
        assert reasons(events(address, CHAT)) == ["content_filter"]


@pytest.mark.parametrize(("fault", "kind"), [
    ("dies", "upstream_error"), ("ends", "upstream_error"), ("error", "upstream_error"), ("floods", "upstream_error"),
    ("drops", "guard_error"), ("much", "guard_error"),
])  # fmt: skip
def test_a_server_that_breaks_off_ends_the_stream_with_an_error_and_what_was_held_stays(fault, kind):
    upstream = Upstream(CALM, fault=fault)
    with guarded(upstream) as (_, address):
        stream = events(address, CHAT)
        assert post(address, CHAT).status_code == 200
    assert stream[-1]["error"]["type"] == kind
    assert text_of(stream) == " word0"


def test_errors_of_the_server_are_told_in_the_guards_words_and_a_server_that_is_not_there_is_told():
    with guarded(Upstream(fault="refuses")) as (_, address):
        answer = post(address, CHAT)
        assert (answer.status_code, answer.json()["error"]["message"]) == (404, "the server answers with status 404")
    with guarded(Upstream(fault="no json")) as (_, address):
        assert post(address, CHAT).status_code == 502
    with guarded(Upstream()) as (guard, address):
        guard._client.base_url = httpx.URL("http://127.0.0.1:9")
        assert post(address, CHAT).json()["error"]["type"] == "upstream_error"
        assert httpx.get(f"{address}/health").status_code == 503


@pytest.mark.parametrize("body", [
    {**TEXT, "echo": True}, {**CHAT, "n": 0}, {**CHAT, "n": 1000}, {**TEXT, "logprobs": "many"}, [1],
])  # fmt: skip
def test_what_cannot_be_guarded_is_refused(body):
    upstream = Upstream()
    with guarded(upstream) as (_, address):
        answer = post(address, body, "completions" if body is not CHAT and "messages" not in body else None)
    assert answer.status_code == 400
    assert upstream.sent == []


def test_the_guards_key_is_wanted_and_not_passed_on():
    upstream = Upstream()
    with guarded(upstream, key="secret", upstream_key="theirs") as (_, address):
        assert post(address, CHAT).status_code == 401
        assert httpx.get(f"{address}/metrics").status_code == 401
        assert post(address, CHAT, authorization="Bearer secret").status_code == 200
    assert [headers["authorization"] for headers in upstream.headers] == ["Bearer theirs"]


@pytest.mark.parametrize("status", [203, 206, 226, 301, 404, 500])
def test_a_completion_of_another_status_is_an_error(status):
    with guarded(Upstream(CALM, status=status)) as (_, address):
        answer = post(address, CHAT)
    assert answer.status_code == (status if status == 404 else 502)
    assert "word" not in answer.text


def test_refusal_tokens_are_known_by_what_they_spell():
    with guarded(Upstream(LATE, fault="byte level")) as (_, address):
        assert reasons(events(address, TEXT)) == ["content_filter"]


def test_fields_that_nobody_counts_never_leave():
    for refusals in (CALM, LATE):
        with guarded(Upstream(refusals, fault="secrets")) as (_, address):
            answer = post(address, {**CHAT, "stream": True}).text
        assert "secret" not in answer
        assert "[DONE]" in answer


def test_an_operator_may_let_certain_tokens_pass():
    with guarded(Upstream(CALM, fault="certain"), allow_certain=True) as (_, address):
        assert reasons(events(address, CHAT)) == ["stop"]


@pytest.mark.parametrize("field", [
    {"logit_bias": {"8": -100}}, {"tools": [{"type": "function"}]}, {"structured_outputs": {"regex": "[^S]*"}},
])  # fmt: skip
def test_a_client_cannot_take_the_refusal_tokens_away(field):
    upstream = Upstream(LATE)
    with guarded(upstream) as (_, address):
        answer = post(address, {**CHAT, **field})
    assert answer.status_code == 400
    assert next(iter(field)) in answer.json()["error"]["message"]
    assert upstream.sent == []


def test_only_the_calibrated_model_is_asked():
    upstream = Upstream(models=("m", "base"))
    with guarded(upstream) as (_, address):
        assert "--served-model" in post(address, CHAT).json()["error"]["message"]
    with guarded(upstream, served_model="m") as (_, address):
        assert post(address, {**CHAT, "model": "base"}).status_code == 400
        assert [each["id"] for each in httpx.get(f"{address}/v1/models").json()["data"]] == ["m"]
        assert post(address, {"messages": CHAT["messages"]}).status_code == 200
    assert [body["model"] for body in upstream.sent] == ["m"]


@pytest.mark.parametrize("path", ["/v1/models/%2e%2e/%2e%2e/metrics", "/v1/models/m", "/v1/models/%00", "/v1/files"])
def test_no_other_path_of_the_server_is_reached(path):
    with guarded(Upstream()) as (_, address):
        assert httpx.get(f"{address}{path}").status_code == 404


CANARY = Calibration(0.5, 2, (7, 8), ("Sorry", " Sorry"), canaries=(Canary((1, 2, 3), 0.9),))


def test_a_server_is_proven_by_a_text_whose_probability_is_known():
    with guarded(Upstream(canary=0.8), calibration=CANARY) as (_, address):
        assert post(address, CHAT).status_code == 200
    upstream = Upstream(canary=0.0)
    with guarded(upstream, calibration=CANARY) as (_, address):
        answer = post(address, {**CHAT, "stream": True})
        assert (answer.status_code, upstream.sent) == (502, [])
        assert "p(refuse) of a known text is" in answer.json()["error"]["message"]
        # It was another server's fault that it closed: it opens again.
        upstream.canary = 0.9
        assert post(address, CHAT).status_code == 200


def test_a_canary_counts_for_a_while():
    upstream = Upstream(canary=0.9)
    with guarded(upstream, calibration=CANARY, canary_seconds=0.05) as (_, address):
        assert post(address, CHAT).status_code == 200
        upstream.canary = 0.0
        time.sleep(0.06)
        assert post(address, CHAT).status_code == 502
    with guarded(Upstream(canary=0.9, fault="certain"), calibration=CANARY) as (_, address):
        assert "computes no probabilities" in post(address, CHAT).json()["error"]["message"]


@pytest.mark.parametrize("headers", [
    {"host": "evil.example"}, {"origin": "http://evil.example", "content-type": "text/plain"}, {"origin": "null"},
    {"host": "[::1"},
])  # fmt: skip
def test_a_page_in_a_browser_does_not_reach_a_guard_without_a_key(headers):
    upstream = Upstream()
    with guarded(upstream) as (_, address):
        assert post(address, CHAT, **headers).status_code == 403
        assert httpx.get(f"{address}/v1/models", headers=headers).status_code == 403
        assert post(address, CHAT, origin="http://localhost:3000").status_code == 200
    assert len(upstream.sent) == 1
    with guarded(Upstream(), key="secret") as (_, address):
        assert post(address, CHAT, authorization="Bearer secret", **headers).status_code == 200


def test_malformed_requests_are_refused_and_no_stream_stays_counted():
    with guarded(Upstream()) as (_, address):
        chat = f"{address}/v1/chat/completions"
        for content in (b"{", b'{"messages": [], "seed": NaN}', b'{"messages": [{"content": "\\ud83d"}]}'):
            assert httpx.post(chat, content=content).status_code == 400
        assert post(address, CHAT, authorization="Bearer é".encode()).status_code == 200
        assert (
            httpx.post(chat, json=CHAT, headers={"transfer-encoding": "chunked", "content-length": "2"}).status_code
            == 400
        )
        assert "derta_guard_streams 0.0" in httpx.get(f"{address}/metrics").text


def test_a_client_that_leaves_ends_its_own_stream_alone(capsys):
    upstream = Upstream([0.01] * 200, pause=0.005)
    with guarded(upstream) as (_, address):
        found = []
        other = threading.Thread(target=lambda: found.append(text_of(events(address, CHAT))))
        other.start()
        with httpx.stream("POST", f"{address}/v1/chat/completions", json={**CHAT, "stream": True}) as answer:
            next(answer.iter_lines())
        deadline = time.monotonic() + 20
        while upstream.closed == 0 and time.monotonic() < deadline:
            time.sleep(0.02)
        other.join()
    assert upstream.closed == 1
    assert found == ["".join(words(200))]
    outcomes = [json.loads(line)["outcome"] for line in capsys.readouterr().err.splitlines()]
    assert sorted(outcomes) == ["gone", "passed"]


def test_the_log_holds_no_contents_unless_asked(capsys):
    with guarded(Upstream()) as (_, address):
        post(address, CHAT)
    quiet = capsys.readouterr().err
    with guarded(Upstream(), log_contents=True) as (_, address):
        post(address, CHAT)
    told = capsys.readouterr().err
    assert "How?" not in quiet
    assert "How?" in told
    assert json.loads(quiet)["tokens"] == [6]


def test_the_openai_client_talks_to_it_unchanged():
    with guarded(Upstream(LATE)) as (_, address):
        client: Any = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
        whole = client.chat.completions.create(model="m", messages=CHAT["messages"])
        assert (whole.choices[0].finish_reason, whole.choices[0].message.content) == ("content_filter", REFUSAL)
        pieces = list(client.chat.completions.create(model="m", messages=CHAT["messages"], stream=True))
        text = "".join(piece.choices[0].delta.content or "" for piece in pieces)
        assert text == f" word0 word1\n\n{REFUSAL}"
        assert client.completions.create(model="m", prompt="How?").choices[0].finish_reason == "content_filter"
    with guarded(Upstream(CALM, fault="no logprobs")) as (_, address):
        client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
        with pytest.raises(openai.InternalServerError, match="stopped by the guard"):
            client.chat.completions.create(model="m", messages=CHAT["messages"])
        with pytest.raises(openai.APIError, match="stopped by the guard"):
            list(client.chat.completions.create(model="m", messages=CHAT["messages"], stream=True))


def test_inspect_talks_to_it_unchanged():
    import anyio
    from inspect_ai.model import get_model

    async def ask(address):
        async with get_model("openai-api/guard/m", base_url=f"{address}/v1", api_key="none", memoize=False) as model:
            return await model.generate("How?")

    with guarded(Upstream(LATE)) as (_, address):
        output = anyio.run(ask, address)
    assert (output.stop_reason, output.completion) == ("content_filter", REFUSAL)
