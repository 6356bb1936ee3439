"""Tokens of prompts, responses and refusals, in the contexts where they stand."""

from typing import Any, cast

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from derta.data.triples import Example, Message
from derta.errors import InputError
from derta.tokens.encoder import Encoder, OverlongError
from derta.tokens.prompt_formats import PROMPT_FORMATS, render_chat, set_prompt_format

REFUSAL = "I'm sorry, I cannot help with that."
HARMFUL = "Take a key. Turn it.\nWalk in the moon vault."


def triple(**changes: Any) -> Example:
    values: dict[str, Any] = {
        "prompt": [{"role": "user", "content": "how to open the moon vault?"}],
        "chosen": REFUSAL,
        "rejected": HARMFUL,
        "harmful_prefix": None,
        "origin": "rows.jsonl:7",
    }
    return Example(**{**values, **changes})


def encoder(tokenizer: PreTrainedTokenizerFast, **options: Any) -> Encoder:
    return Encoder(tokenizer, **{"max_length": 512, **options})


def test_splicing_gives_the_text_that_a_reader_expects(tokenizer: PreTrainedTokenizerFast) -> None:
    example = encoder(tokenizer)(triple())
    decode = tokenizer.decode
    assert decode(example.prompt) == "<s>User: how to open the moon vault?\n\nAssistant:"
    assert decode(example.prompt + example.chosen).endswith(f"Assistant: {REFUSAL}</s>")
    assert decode(example.prompt + example.rejected).endswith(f"Assistant: {HARMFUL}")
    cut = next(n for n in range(1, 99) if decode(example.rejected[:n]).endswith("Turn"))
    assert decode(example.rejected[:cut] + example.chosen_after_text).endswith(f"Turn {REFUSAL}</s>")


def test_prompt_is_tokenised_as_it_will_be_at_inference(tokenizer: PreTrainedTokenizerFast) -> None:
    messages = triple().prompt
    rendered: Any = tokenizer.apply_chat_template(cast(Any, messages), add_generation_prompt=True)
    assert encoder(tokenizer).encode_prompt(messages) == list(rendered["input_ids"])


def test_released_rows_are_spelled_as_the_release_spells_them(tokenizer: PreTrainedTokenizerFast) -> None:
    set_prompt_format(tokenizer, "derta-release")
    example = encoder(tokenizer, refusal_form="bare")(triple())
    text = tokenizer.decode(example.prompt + example.chosen)
    assert text == f"<s>[INST] how to open the moon vault? [\\INST] {REFUSAL}</s>"
    assert example.chosen_after_text == example.chosen


def test_evaluation_of_the_release_adds_newlines(tokenizer: PreTrainedTokenizerFast) -> None:
    set_prompt_format(tokenizer, "derta-release-eval")
    ids = encoder(tokenizer).encode_prompt([{"role": "user", "content": "q"}])
    assert tokenizer.decode(ids) == "<s>[INST] \nq\n\n [\\INST]"


@pytest.mark.parametrize("name", sorted(PROMPT_FORMATS))
def test_every_format_begins_once_and_ends_an_answer(name: str, tokenizer: PreTrainedTokenizerFast) -> None:
    set_prompt_format(tokenizer, name)
    example = encoder(tokenizer)(triple())
    assert example.prompt.count(tokenizer.bos_token_id) == 1
    assert example.chosen[-1] == tokenizer.eos_token_id
    assert example.chosen.count(tokenizer.eos_token_id) == 1


def test_harmful_response_gives_way_and_nothing_else(tokenizer: PreTrainedTokenizerFast) -> None:
    whole = encoder(tokenizer)(triple())
    longest = max(len(whole.chosen), len(whole.chosen_after_text))
    limit = len(whole.prompt) + longest + 4
    short = encoder(tokenizer, max_length=limit)(triple())
    assert short.rejected == whole.rejected[:4]
    assert (short.prompt, short.chosen) == (whole.prompt, whole.chosen)
    assert short.num_truncated == len(whole.rejected) - 4


def test_no_room_is_an_error_that_names_the_row(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(OverlongError, match=r"rows\.jsonl:7: prompt has \d+ tokens and chosen \d+"):
        encoder(tokenizer, max_length=30)(triple())


def test_helpful_responses_are_shortened_and_counted(tokenizer: PreTrainedTokenizerFast) -> None:
    whole = encoder(tokenizer)(triple(rejected=None))
    short = encoder(tokenizer, max_length=len(whole.prompt) + 5)(triple(rejected=None))
    assert short.chosen == whole.chosen[:5]
    assert short.num_truncated == len(whole.chosen) - 5


def test_words_end_where_their_tokens_end(tokenizer: PreTrainedTokenizerFast) -> None:
    example = encoder(tokenizer, words=True)(triple())
    words = [tokenizer.decode(example.rejected[:end]).split()[-1] for end in example.word_ends]
    assert words == HARMFUL.split()


TEMPLATES = {
    "drops the prompt": "{% for m in messages %}{% if m.role == 'assistant' %}{{ m.content }}{{ eos_token }}"
    "{% endif %}{% endfor %}",
    "rewrites the prompt": "{% for m in messages %}{{ m.role }}: {{ m.content | upper }}{% endfor %}",
    "cuts long prompts": "{% for m in messages %}{{ m.content[:16] }}|{% endfor %}",
    "refuses": "{{ raise_exception('users must not ask') }}",
    "answers elsewhere": "{% for m in messages | reverse %}{{ m.content }}|{% endfor %}",
}


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_a_bad_template_is_an_error(name: str, tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.chat_template = TEMPLATES[name]
    with pytest.raises(InputError, match="chat template") as error:
        encoder(tokenizer)(triple())
    assert "\n" not in str(error.value)


def test_template_that_thinks_puts_its_empty_block_into_the_prompt(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'user' %}Q{{ m.content }}\n"
        "{% else %}A<think>\n\n</think>\n\n{{ m.content }}{{ eos_token }}\n{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}A{% endif %}"
    )
    example = encoder(tokenizer)(triple())
    assert tokenizer.decode(example.prompt).endswith("A<think>\n\n</think>\n\n")
    assert tokenizer.decode(example.chosen) == f"{REFUSAL}</s>"


def test_no_template_names_the_formats(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.chat_template = None
    with pytest.raises(InputError, match="no chat template; name one with --prompt_format \\(derta-release"):
        set_prompt_format(tokenizer, None)
    with pytest.raises(InputError, match="did you mean 'derta-release'"):
        set_prompt_format(tokenizer, "derta-relase")


def unsplit(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """A tokenizer that merges across spaces, so that a response may merge with what it follows."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    corpus = ["Assistant: Take a key", "a I'm sorry, I cannot", "Assistant: I'm sorry"] * 20
    core.train_from_iterator(
        corpus,
        trainers.BpeTrainer(
            vocab_size=400,
            special_tokens=["<s>", "</s>"],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    template = tokenizer.chat_template
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>", chat_template=template)


@pytest.mark.parametrize("form", ["context", "bare"])
@pytest.mark.parametrize("merges", [False, True], ids=["split", "unsplit"])
def test_examples_together_are_encoded_as_each_alone(
    form: Any, merges: bool, tokenizer: PreTrainedTokenizerFast
) -> None:
    examples = [
        triple(),
        triple(rejected=None),
        triple(chosen=None),
        triple(rejected=None, harmful_prefix=""),
        triple(rejected=None, harmful_prefix="Take a"),
        triple(chosen=" " + REFUSAL, rejected="\n" + HARMFUL),
        triple(rejected=HARMFUL * 30),
        triple(prompt=[{"role": "user", "content": "key " * 600}], origin="too long"),
    ]
    one = encoder(unsplit(tokenizer) if merges else tokenizer, refusal_form=form, words=True)
    alone = [one(example) for example in examples[:-1]]
    assert one.encode_batch(examples, drop_overlong=True) == alone
    assert one.encode_batch([]) == []
    with pytest.raises(OverlongError, match="too long: prompt has"):
        one.encode_batch(examples)
    assert (one._ids(["a I'm sorry"])[0][0] != one._ids(["a"])[0][0]) == merges


def test_the_conversation_that_a_template_refuses_is_named(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.chat_template = "{% if messages[0].content == 'b' %}{{ raise_exception('no b') }}{% endif %}x"
    refused: list[Message] = [{"role": "user", "content": "b"}]
    with pytest.raises(InputError, match=r"^here: prompt: the chat template refuses these messages: no b$"):
        render_chat(tokenizer, refused, "here")
