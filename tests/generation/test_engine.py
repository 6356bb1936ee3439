"""The engine: requests from many threads, each answered as alone; errors reach those they concern."""

import threading
import time
from concurrent.futures import CancelledError, ThreadPoolExecutor
from typing import Any

import pytest
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from derta.errors import InputError
from derta.generation import ChatRequest, Engine, RawRequest, generate
from derta.generation.jobs import Job
from tests.generation.tiny import make_model, make_tokenizer

SECONDS = 20


def chat(text: str, prefix: Any = "") -> Any:
    return ChatRequest(({"role": "user", "content": text},), prefix)


REQUESTS = [chat(f"how to open the {'big ' * number}vault?", "Sure" * (number % 3)) for number in range(9)]


@pytest.fixture
def engine(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> Any:
    with Engine(model, tokenizer, batch_size=4) as engine:
        yield engine


def test_requests_of_many_threads_get_what_they_get_alone(
    engine: Engine, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    lengths = [3 + 4 * number for number in range(len(REQUESTS))]
    with ThreadPoolExecutor(4) as threads:
        answers = list(
            threads.map(lambda pair: engine.submit(*pair).result(SECONDS), zip(REQUESTS, lengths, strict=True))
        )
    assert answers == [
        generate(model, tokenizer, [request], length)[0] for request, length in zip(REQUESTS, lengths, strict=True)
    ]


def test_a_seed_gives_the_same_draws_whatever_else_runs(
    engine: Engine, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    others = [engine.submit(request, 16, temperature=1.0, seed=5) for request in REQUESTS]
    one, again, another = (engine.submit(REQUESTS[0], 16, temperature=1.0, seed=seed) for seed in (1, 1, 2))
    assert one.result(SECONDS) == again.result(SECONDS) != another.result(SECONDS)
    assert one.result() == generate(model, tokenizer, [REQUESTS[0]], 16, temperature=1.0, seed=1)[0]
    assert len({other.result(SECONDS).continuation for other in others}) == len(others)


def test_a_stop_text_ends_the_answer_and_is_not_part_of_it(engine: Engine) -> None:
    whole = engine.submit(REQUESTS[0], 30).result(SECONDS).continuation
    stop = whole[5:7]
    answer = engine.submit(REQUESTS[0], 30, stop=[stop, "never written"]).result(SECONDS)
    assert answer.continuation == whole[: whole.index(stop)]
    assert answer.finished
    assert answer.tokens < 30


def test_an_error_of_one_request_is_its_own(engine: Engine) -> None:
    bad = [
        (engine.submit(RawRequest("a" * 300), 8), "context of 256"),
        (engine.submit(REQUESTS[0], 0), "max_new_tokens"),
        (engine.submit(REQUESTS[0], 8, temperature=-1.0), "temperature"),
    ]
    good = engine.submit(REQUESTS[0], 8)
    for answer, message in bad:
        with pytest.raises(InputError, match=message):
            answer.result(SECONDS)
    assert good.result(SECONDS).tokens


def test_an_error_of_the_model_reaches_all_that_wait_and_the_engine_goes_on(tokenizer: PreTrainedTokenizerFast) -> None:
    model = make_model(len(tokenizer))
    with Engine(model, tokenizer, batch_size=2) as engine:
        forward, expected = model.forward, engine.submit(REQUESTS[0], 4).result(SECONDS)
        with engine.exclusive():
            answers = [engine.submit(request, 4) for request in REQUESTS]

            def broken(**kwargs: Any) -> None:
                raise RuntimeError("broken")

            model.forward = broken
        for answer in answers:
            with pytest.raises(RuntimeError, match="broken"):
                answer.result(SECONDS)
        model.forward = forward
        assert engine.submit(REQUESTS[0], 4).result(SECONDS) == expected


def test_an_answer_that_cannot_be_read_fails_what_waits(
    tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Engine(make_model(len(tokenizer)), tokenizer, batch_size=2) as engine:

        def broken(job: Job) -> None:
            raise RuntimeError("unreadable")

        with monkeypatch.context() as patch:
            patch.setattr(Job, "generation", broken)
            for answer in [engine.submit(request, 4) for request in REQUESTS]:
                with pytest.raises(RuntimeError, match="unreadable"):
                    answer.result(SECONDS)
        assert engine.submit(REQUESTS[0], 4).result(SECONDS).tokens


def test_the_engine_rests_while_another_thread_has_the_model_alone(tokenizer: PreTrainedTokenizerFast) -> None:
    model = make_model(len(tokenizer))
    passes = []
    model.register_forward_pre_hook(lambda *_: passes.append(threading.current_thread().name))
    with Engine(model, tokenizer) as engine:
        answers = [engine.submit(request, 60) for request in REQUESTS]
        with engine.exclusive(), engine.exclusive():
            before = len(passes)
            more = engine.submit(REQUESTS[0], 60)
            time.sleep(0.05)
            assert len(passes) == before
            assert not more.done()
            model.train()
        expected = generate(make_model(len(tokenizer)), tokenizer, REQUESTS, 60)
        assert [answer.result(SECONDS) for answer in answers] == expected
        assert more.result(SECONDS) == expected[0]


def test_exclusive_use_is_had_by_one_thread_at_a_time(engine: Engine) -> None:
    inside, most = [], []

    def use() -> None:
        with engine.exclusive():
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.01)
            inside.pop()

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert most == [1] * 4


def test_a_closed_engine_cancels_what_waits_and_takes_nothing(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    engine = Engine(model, tokenizer, batch_size=1)
    answers = [engine.submit(request, 150) for request in REQUESTS]
    engine.close()
    engine.close()
    for answer in answers[1:]:
        with pytest.raises(CancelledError):
            answer.result(SECONDS)
    with pytest.raises(RuntimeError, match="closed"):
        engine.submit(REQUESTS[0], 8)


def test_a_cancelled_future_is_not_run(tokenizer: PreTrainedTokenizerFast) -> None:
    model = make_model(len(tokenizer))
    with Engine(model, tokenizer) as engine:
        with engine.exclusive():
            answer = engine.submit(REQUESTS[0], 8)
            assert answer.cancel()
        assert engine.submit(REQUESTS[1], 8).result(SECONDS).tokens


def test_no_chat_template_is_an_error_of_the_request(model: PreTrainedModel) -> None:
    with Engine(model, make_tokenizer(template=None)) as engine, pytest.raises(InputError, match="no chat template"):
        engine.submit(REQUESTS[0]).result(SECONDS)
