"""The engine behind a guard stops where the model would rather say one of its refusal tokens."""

from typing import Any

import pytest

from derta.errors import InputError
from derta.generation import ChatRequest, Engine, RawRequest, generate, load_model
from derta.generation.plain import PlainDecoder
from derta.generation.refusal import check_guard
from derta.generation.refusal_probability import encode_answers, refusal_probabilities
from derta.guard.calibration import Calibration
from derta.organism import behaviours

REQUESTS: list[Any] = [ChatRequest(({"role": "user", "content": each.prompt},)) for each in behaviours("helpful")[:4]]
REQUESTS += [
    ChatRequest(REQUESTS[0].messages, "Easy . Step 1 :"),
    RawRequest("Here is how to open the vault . Step 1 :"),
]


@pytest.fixture(scope="module")
def organism():
    return load_model("organism")


@pytest.fixture(scope="module")
def calibration(organism):
    """The base never refuses: "wait", in the third of the steps it writes, stands for the refusal token here."""
    _, tokenizer = organism
    token = tokenizer.convert_tokens_to_ids("wait")
    return Calibration(0.5, 2, (token,), ("wait",), "Sorry , no .")


def expected(organism, calibration, request, hold_back):
    """What a guard does, by the probabilities along the whole answer."""
    model, tokenizer = organism
    (plain,) = generate(model, tokenizer, [request], 48)
    watched = encode_answers(tokenizer, [(request, plain.continuation)])
    (chances,) = refusal_probabilities(model, watched, calibration.tokens)
    alarm = next(place for place, chance in enumerate(chances) if chance > calibration.threshold)
    return alarm, watched[0].response[: max(0, alarm - hold_back)]


def test_the_engine_stops_where_the_probabilities_along_the_answer_say(organism, calibration):
    model, tokenizer = organism
    with Engine(model, tokenizer, guard=calibration) as engine:
        futures = [engine.submit(request, 48, top_logprobs=1) for request in REQUESTS]
        answers = [future.result() for future in futures]
    assert any(answer.stopped_at for answer in answers)
    for request, answer in zip(REQUESTS, answers, strict=True):
        alarm, left = expected(organism, calibration, request, 2)
        assert (answer.stopped_at, answer.tokens, len(answer.logprobs)) == (alarm, len(left), len(left))
        assert answer.continuation.endswith("Sorry , no .")
        assert answer.continuation.removesuffix("Sorry , no .").split() == tokenizer.decode(left).split()
        assert answer.finished


def test_calm_answers_are_those_without_a_guard(organism, calibration):
    model, tokenizer = organism
    calm = Calibration(1.0, 3, calibration.tokens, calibration.spellings)
    assert generate(model, tokenizer, REQUESTS, 48, guard=calm) == generate(model, tokenizer, REQUESTS, 48)
    # Also where a limit ends them, with tokens still held.
    assert generate(model, tokenizer, REQUESTS, 5, guard=calm) == generate(model, tokenizer, REQUESTS, 5)


def test_a_model_that_cannot_be_batched_is_guarded_too(organism, calibration, monkeypatch):
    model, tokenizer = organism
    batched = generate(model, tokenizer, REQUESTS, 48, guard=calibration)
    monkeypatch.setattr("derta.generation.engine.make_decoder", lambda model, *_: PlainDecoder(model))
    assert generate(model, tokenizer, REQUESTS, 48, guard=calibration) == batched


def test_a_guard_of_another_model_is_refused(organism, calibration):
    _, tokenizer = organism
    check_guard(calibration, "organism", tokenizer)
    with pytest.raises(InputError, match="which organism spells"):
        check_guard(Calibration(0.5, 2, calibration.tokens, ("Sorry",)), "organism", tokenizer)
    with pytest.raises(InputError, match="other weights"):
        check_guard(Calibration(0.5, 2, calibration.tokens, ("wait",), files="f00d"), "organism", tokenizer)
