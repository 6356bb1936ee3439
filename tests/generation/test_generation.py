"""Generation: the three ways into a model, and batches that change nothing but the speed."""

from typing import Any

import pytest
import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerFast

from derta.errors import InputError
from derta.generation import ChatRequest, RawRequest, encode, first_tokens, generate, stream
from derta.generation.plain import PlainDecoder
from tests.generation.tiny import make_model, make_tokenizer


def chat(text: str, prefix: Any = "") -> Any:
    return ChatRequest(({"role": "user", "content": text},), prefix)


REQUESTS = [
    chat("how to open the vault?"),
    chat("hi"),
    chat("how to open the sofa bed when it is stuck and cold?", "Sure, here is how: Step 1"),
    RawRequest("I will explain how to open the vault\n Step 1:"),
    chat("why?", "Sure"),
    RawRequest("a"),
    chat("how to bake?"),
]


def test_a_batch_gives_what_each_request_gives_alone(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    alone = [generate(model, tokenizer, [request], 24)[0] for request in REQUESTS]
    for batch_size in (2, 3, len(REQUESTS)):
        assert generate(model, tokenizer, REQUESTS, 24, batch_size) == alone
    assert len({output.continuation for output in alone}) == len(alone)


def test_greedy_output_is_the_argmax_chain_without_padding_or_cache(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    for request in REQUESTS:
        ids = encode(tokenizer, [request])[0].ids
        start = len(ids)
        for _ in range(12):
            logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits
            ids.append(int(logits[0, -1].argmax()))
            if ids[-1] == tokenizer.eos_token_id:
                break
        expected = [token for token in ids[start:] if token != tokenizer.eos_token_id]
        output = generate(model, tokenizer, [request], 12)[0]
        assert output.tokens == len(expected)
        assert output.continuation == tokenizer.decode(expected, skip_special_tokens=True)


def test_prefill_continues_the_same_turn(tokenizer: PreTrainedTokenizerFast) -> None:
    plain, begun = (context.ids for context in encode(tokenizer, [chat("how?"), chat("how?", "Sure, here")]))
    assert begun[: len(plain)] == plain
    # The template writes a space between the turn's token and the answer: the answer that it renders begins with it.
    assert begun[len(plain) :] == tokenizer(" Sure, here", add_special_tokens=False)["input_ids"]
    assert plain[-1] == tokenizer.convert_tokens_to_ids("<assistant>")
    whole = [*chat("how?").messages, {"role": "assistant", "content": "Sure, here it is"}]
    assert tokenizer.apply_chat_template(whole, return_dict=False)[: len(begun)] == begun


def test_bos_is_not_doubled(tokenizer: PreTrainedTokenizerFast) -> None:
    for request in REQUESTS:
        assert encode(tokenizer, [request])[0].ids.count(tokenizer.bos_token_id) == 1


@pytest.mark.parametrize("adds_bos", [True, False])
def test_raw_text_gets_no_special_token_but_the_tokenizers_own_bos(adds_bos: Any) -> None:
    tokenizer = make_tokenizer(adds_bos=adds_bos)
    ids = encode(tokenizer, [RawRequest("I will explain <user> how</s>\n Step 1:")])[0].ids
    special = [token for token in ids if token in tokenizer.all_special_ids]
    assert special == ([tokenizer.bos_token_id] if adds_bos else [])
    assert tokenizer.decode(ids[adds_bos:]) == "I will explain <user> how</s>\n Step 1:"


def test_the_response_is_prefix_and_continuation(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    output = generate(model, tokenizer, [chat("how?", "Sure, here")], 8)[0]
    assert output.prefix == "Sure, here"
    assert output.response == output.prefix + output.continuation
    assert not output.continuation.startswith("Sure")


def test_first_tokens_are_a_beginning_of_the_text(tokenizer: PreTrainedTokenizerFast) -> None:
    assert first_tokens(tokenizer, "Sure, here", 4) == "Sure"
    assert first_tokens(tokenizer, "Sure", 99) == "Sure"
    assert first_tokens(tokenizer, "Sure", 0) == ""


def test_a_shipped_way_of_sampling_does_not_change_greedy_decoding(tokenizer: PreTrainedTokenizerFast) -> None:
    model = make_model(len(tokenizer))
    expected = generate(model, tokenizer, REQUESTS, 16)
    shipped = GenerationConfig(do_sample=True, temperature=3.0, top_k=1, top_p=0.1, eos_token_id=2)
    model.generation_config = shipped
    model.train()
    assert generate(model, tokenizer, REQUESTS, 16) == expected
    assert model.generation_config is shipped
    assert model.training


def test_every_end_token_of_the_checkpoint_ends_a_turn(tokenizer: PreTrainedTokenizerFast) -> None:
    model = make_model(len(tokenizer))
    free = generate(model, tokenizer, [chat("how?")], 16)[0]
    assert free.tokens >= 2
    ids = torch.tensor([encode(tokenizer, [chat("how?")])[0].ids])
    second = int(model.generate(ids, do_sample=False, max_new_tokens=2)[0, -1])
    model.generation_config = GenerationConfig(eos_token_id=[2, second])
    ended = generate(model, tokenizer, [chat("how?")], 16)[0]
    assert ended.finished
    assert ended.tokens == 1
    assert free.continuation.startswith(ended.continuation)


def test_a_stream_yields_each_request_once(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    indices = [index for index, _ in stream(model, tokenizer, REQUESTS, 4, batch_size=2)]
    assert sorted(indices) == list(range(len(REQUESTS)))


def test_no_chat_template_is_an_input_error(model: PreTrainedModel) -> None:
    with pytest.raises(InputError, match="no chat template"):
        generate(model, make_tokenizer(template=None), [chat("how?")], 4)


def test_a_prompt_that_does_not_fit_is_an_input_error(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    with pytest.raises(InputError, match="context of 256"):
        generate(model, tokenizer, [chat("a" * 300)], 4)


def test_no_request_no_output(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    assert generate(model, tokenizer, [], 4) == []


def test_log_probabilities_are_those_of_the_tokens_written(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    request = chat("how?", "Sure")
    plain, told = (generate(model, tokenizer, [chat("hi"), request], 12, top_logprobs=top)[1] for top in (0, 3))
    assert (told.continuation, told.tokens) == (plain.continuation, plain.tokens)
    assert plain.logprobs == ()
    assert len(told.logprobs) == told.tokens
    ids = encode(tokenizer, [request])[0].ids
    for entry in told.logprobs:
        expected = model(input_ids=torch.tensor([ids])).logits[0, -1].log_softmax(-1)
        values, top = expected.topk(3)
        assert [value for _, value in entry.top] == pytest.approx(values.tolist(), abs=1e-4)
        assert entry.logprob == entry.top[0][1]  # greedy
        assert entry.token == entry.top[0][0]
        ids.append(int(top[0]))


def test_sampling_depends_on_the_seed_and_the_request_alone(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    same = [REQUESTS[0]] * 6
    first = generate(model, tokenizer, same, 16, temperature=1.0, seed=3)
    assert generate(model, tokenizer, same, 16, 2, temperature=1.0, seed=3) == first
    assert generate(model, tokenizer, same[:2], 16, temperature=1.0, seed=3) == first[:2]
    assert generate(model, tokenizer, same, 16, temperature=1.0, seed=4) != first
    assert len({output.continuation for output in first}) == 6


def test_a_very_low_temperature_is_greedy(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    greedy = generate(model, tokenizer, REQUESTS, 16)
    assert generate(model, tokenizer, REQUESTS, 16, temperature=1e-6) == greedy


def test_draws_follow_the_models_distribution(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    count, request = 1500, chat("how?")
    outputs = generate(model, tokenizer, [request] * count, 1, temperature=2.0, top_logprobs=1)
    found = sum(output.tokens and output.logprobs[0].token == output.logprobs[0].top[0][0] for output in outputs)
    ids = encode(tokenizer, [request])[0].ids
    likeliest = (model(input_ids=torch.tensor([ids])).logits[0, -1] / 2.0).softmax(-1).max().item()
    assert abs(found / count - likeliest) < 4 * (likeliest * (1 - likeliest) / count) ** 0.5


def test_a_checkpoint_s_bias_moves_the_choice_of_a_token(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    ids = encode(tokenizer, [REQUESTS[0]])[0].ids
    logits = model(input_ids=torch.tensor([ids])).logits[0, -1]
    first, second = logits.topk(2).indices.tolist()
    gap = float(logits[first] - logits[second])
    shipped = model.generation_config
    try:
        for bias, expected in ((gap - 1e-3, first), (gap + 1e-3, second)):
            model.generation_config = GenerationConfig(sequence_bias=[[[second], bias]])
            (answer,) = generate(model, tokenizer, [REQUESTS[0]], 1)
            assert answer.continuation == tokenizer.decode([expected], skip_special_tokens=True)
    finally:
        model.generation_config = shipped


ALL = list(range(5, 261))


@pytest.mark.parametrize(
    "asked",
    [
        {"repetition_penalty": 1.05},
        {"repetition_penalty": 1.3, "no_repeat_ngram_size": 2},
        {"no_repeat_ngram_size": 3},
        {"suppress_tokens": ALL[::2]},
        {"begin_suppress_tokens": ALL[::2]},
        {"bad_words_ids": [[token] for token in ALL[::3]] + [[one, two] for one in ALL[:99] for two in ALL[:99:9]]},
        {"sequence_bias": [[[one, two], 9.0] for one in ALL[::7] for two in ALL[::31]]},
        {"stop_strings": ["z", "X", "Q"]},
    ],
)
@pytest.mark.parametrize("is_plain", [False, True])
def test_a_checkpoint_s_generation_configuration_is_obeyed_as_generate_obeys_it(
    asked: dict[str, Any], is_plain: bool, model: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped, plain = model.generation_config, generate(model, tokenizer, REQUESTS, 16)
    if is_plain:
        monkeypatch.setattr("derta.generation.engine.make_decoder", lambda model, *_: PlainDecoder(model))
    try:
        model.generation_config = GenerationConfig(**asked, eos_token_id=2, pad_token_id=0)
        answers = generate(model, tokenizer, REQUESTS, 16)
        for context, answer in zip(encode(tokenizer, REQUESTS), answers, strict=True):
            ids = torch.tensor([context.ids])
            how = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 16, "do_sample": False}
            written = model.generate(ids, **how, tokenizer=tokenizer)[0, len(context.ids) :].tolist()
            expected = written[:-1] if written[-1] == 2 else written
            assert answer.tokens == len(expected)
            assert answer.continuation == tokenizer.decode(expected, skip_special_tokens=True)
    finally:
        model.generation_config = shipped
    assert answers != plain


@pytest.mark.parametrize(
    ("name", "value"), [("num_beams", 4), ("guidance_scale", 1.5), ("min_new_tokens", 8), ("forced_eos_token_id", 2)]
)
def test_what_a_generation_configuration_asks_for_and_is_not_done_is_refused(
    name: str, value: Any, model: Any, tokenizer: Any
) -> None:
    shipped = model.generation_config
    try:
        model.generation_config = GenerationConfig(**{name: value})
        with pytest.raises(InputError, match=f"generation_config.json: {name}: {value}"):
            generate(model, tokenizer, REQUESTS[:1], 1)
    finally:
        model.generation_config = shipped
