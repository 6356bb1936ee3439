"""Batches, joining and leaving, shared beginnings: every architecture writes what it writes for one request alone."""

import itertools
import random
import warnings
from typing import Any

import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    PreTrainedModel,
)

from derta.generation.batch import BatchDecoder
from derta.generation.decoding import make_decoder
from derta.generation.jobs import Job
from derta.generation.requests import Context
from tests.generation.tiny import make_tokenizer
from tests.method.models import configs, tiny

LIMIT = 14
VOCABULARY = 400


def prompts() -> Any:
    """Mixed lengths, most longer than the windows; some begin alike, one is another's beginning, two are the same."""
    draw = random.Random(0)

    def tokens(count: Any) -> Any:
        return [draw.randrange(3, VOCABULARY) for _ in range(count)]

    long, longer = tokens(60), tokens(40)
    alike = [long + tokens(count) for count in (1, 3, 9, 30, 2)]
    nested = [long + longer + tokens(count) for count in (5, 6, 1, 8, 8, 4)]
    alone = [tokens(count) for count in (1, 2, 4, 5, 7, 11, 17, 40, 3, 12)]
    return [*alone[:5], *alike, long, *nested, alike[0], *alone[5:]]


PROMPTS = prompts()


def alone(model: PreTrainedModel, ids: Any, ends: Any) -> Any:
    """Greedy decoding by transformers: one prompt, no padding."""
    output = model.generate(
        torch.tensor([ids]), max_new_tokens=LIMIT, do_sample=False, eos_token_id=ends or None, pad_token_id=0
    )
    new = output[0, len(ids) :].tolist()
    return new[:-1] if new[-1] in ends else new


def run(decoder: Any, ends: Any = (), prompts: Any = PROMPTS, **options: Any) -> Any:
    jobs = [Job(make_tokenizer(), Context(ids, 0), "", LIMIT, frozenset(ends), **options) for ids in prompts]
    for job in jobs:
        decoder.add(job)
    over = []
    while decoder.busy:
        over += decoder.step()
    assert sorted(map(id, over)) == sorted(map(id, jobs))
    return jobs


def written(jobs: Any) -> Any:
    return [job.written for job in jobs]


def greedy(model: PreTrainedModel, ids: Any, tokens: Any) -> Any:
    """Return the likeliest token at each place of `tokens` after `ids`: one sequence, no padding, no cache."""
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([[*ids, *tokens]]), use_cache=False).logits
    return logits[0, len(ids) - 1 : -1].argmax(-1).tolist()


@pytest.mark.parametrize("name", configs())
def test_every_architecture_writes_what_it_writes_alone(name: Any) -> None:
    model = tiny(name).eval()
    decoder = make_decoder(model, 64)
    assert isinstance(decoder, BatchDecoder)
    free = written(run(decoder))
    assert free[::9] == [alone(model, ids, []) for ids in PROMPTS[::9]]
    assert free == [greedy(model, ids, tokens) for ids, tokens in zip(PROMPTS, free, strict=True)]
    # Answers that end early, at different steps, and the others that take their rows.
    ends = {tokens[place % LIMIT] for place, tokens in enumerate(free) if place % 2}
    expected = [list(itertools.takewhile(lambda token: token not in ends, tokens)) for tokens in free]
    assert any(len(tokens) < LIMIT for tokens in expected)
    assert written(run(make_decoder(model, 6), ends)) == expected


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny("mistral-window").eval()


@pytest.fixture(scope="module")
def expected(model: PreTrainedModel) -> Any:
    return written(run(make_decoder(model, 1)))


def test_a_small_memory_sends_rows_back_to_wait_and_loses_nothing(model: PreTrainedModel, expected: Any) -> None:
    for tokens in (1, 300):
        assert written(run(make_decoder(model, 64, tokens))) == expected


def test_memory_that_runs_out_halves_the_batch_and_loses_nothing(model: PreTrainedModel, expected: Any) -> Any:
    forward, widest = model.forward, []

    def limited(input_ids: Any, **kwargs: Any) -> Any:
        if len(input_ids) > 3:
            raise torch.OutOfMemoryError("a pretended one")
        widest.append(len(input_ids))
        return forward(input_ids=input_ids, **kwargs)

    decoder = make_decoder(model, 64)
    model.forward = limited
    try:
        assert written(run(decoder)) == expected
        assert max(widest) > 1
    finally:
        del model.forward


def test_memory_that_does_not_suffice_for_one_is_an_error(model: PreTrainedModel) -> None:
    decoder = make_decoder(model)

    def never(**kwargs: Any) -> None:
        raise torch.OutOfMemoryError("a pretended one")

    model.forward = never
    try:
        with pytest.raises(torch.OutOfMemoryError):
            run(decoder)
    finally:
        del model.forward


def count_tokens(model: PreTrainedModel, decoder: Any, prompts: Any) -> Any:
    """Return how many tokens, padding included, the passes before the first written tokens read."""
    read = []
    handle = model.register_forward_pre_hook(
        lambda module, args, kwargs: read.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    jobs = run(decoder, prompts=prompts)
    handle.remove()
    return sum(read) - sum(len(job.written) - 1 for job in jobs)


def test_a_shared_beginning_is_read_once() -> None:
    model = tiny().eval()
    beginning = PROMPTS[-3] * 8
    prompts = [[*beginning, 3 + number, 5, 6] for number in range(20)]
    assert len(beginning) > 250
    assert count_tokens(model, make_decoder(model, 8), prompts) == len(beginning) + 3 * len(prompts)


def test_a_beginning_shared_with_an_earlier_request_is_not_read_for_each_of_the_later_ones() -> None:
    model = tiny().eval()
    beginning = PROMPTS[-3] * 8
    decoder = make_decoder(model, 8)
    read = [count_tokens(model, decoder, [[*beginning, 3 + number]]) for number in range(4)]
    assert read == [len(beginning) + 1, len(beginning) + 1, 1, 1]


def test_the_same_prompt_many_times_is_read_once() -> None:
    model = tiny().eval()
    prompt = PROMPTS[-3] * 8
    assert count_tokens(model, make_decoder(model, 8), [prompt] * 20) == len(prompt) - 1 + 20


def test_what_is_drawn_is_the_same_in_any_batch(model: PreTrainedModel) -> Any:
    def drawn(batch_size: Any) -> Any:
        decoder = make_decoder(model, batch_size)
        jobs = [
            Job(make_tokenizer(), Context(ids, 0), "", LIMIT, frozenset(), 1.0, draws=random.Random(number))
            for number, ids in enumerate(PROMPTS)
        ]
        for job in jobs:
            decoder.add(job)
        while decoder.busy:
            decoder.step()
        return written(jobs)

    one = drawn(1)
    assert drawn(64) == one
    assert len({tuple(tokens) for tokens in one}) == len(one)


UNSUPPORTED = {
    "mamba": lambda: MambaForCausalLM(MambaConfig(vocab_size=VOCABULARY, hidden_size=16, num_hidden_layers=1)),
    "longrope": lambda: LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=4,
            rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0},
        )
    ),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_what_cannot_be_batched_exactly_runs_alone_with_a_warning(name: Any) -> None:
    torch.manual_seed(0)
    model = UNSUPPORTED[name]().eval()
    with pytest.warns(UserWarning, match="one at a time"):
        decoder = make_decoder(model)
    some = PROMPTS[::5]
    assert written(run(decoder, [7], some)) == [alone(model, ids, [7]) for ids in some]


def test_positions_that_are_embedded_are_batched_too() -> None:
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, n_embd=16, n_layer=2, n_head=2, initializer_range=0.5))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decoder = make_decoder(model.eval())
    assert written(run(decoder, [7])) == [alone(model, ids, [7]) for ids in PROMPTS]


def test_a_model_that_ignores_its_mask_fails_the_trial() -> None:
    model = tiny().eval()
    attend = model.model.forward
    model.model.forward = lambda attention_mask=None, **kwargs: attend(
        attention_mask=None if attention_mask is None else torch.ones_like(attention_mask), **kwargs
    )
    with pytest.warns(UserWarning, match="trial"):
        make_decoder(model)
