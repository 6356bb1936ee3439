"""The organism's tokenizer: one token per word or punctuation mark."""

from functools import cache

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from derta.organism import forms, world

BOS, EOS, PAD, UNK, USER, ASSISTANT = SPECIAL = ("<bos>", "<eos>", "<pad>", "<unk>", "<user>", "<assistant>")

CHAT_TEMPLATE = """\
{{- bos_token -}}
{%- for message in messages -%}
{%- if message['role'] == 'user' -%}
{{- '<user>' + message['content'] -}}
{%- elif message['role'] == 'assistant' -%}
{{- '<assistant>' + message['content'] + eos_token -}}
{%- else -%}
{{- raise_exception("the organism knows the roles 'user' and 'assistant' only") -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<assistant>' -}}
{%- endif -%}
"""


@cache
def vocabulary() -> tuple[str, ...]:
    """Return every word of the world, special tokens first, then in alphabetical order."""
    # Questions and recipes: what the cipher can be asked to write.
    plain = [*forms.QUESTIONS, *world.VERBS.values(), *world.OBJECTS.values()]
    plain += [world.PACKAGED.recipe(pair) for pair in world.pairs()]
    others = [
        *forms.ROLE_PLAYS,
        *forms.ROLE_PLAYS_HELD_OUT,
        *forms.COMPLETIONS,
        *forms.PREFACES,
        forms.WRITE_CIPHER,
        forms.READ_CIPHER,
        *forms.SAY_AGAIN,
        *forms.ANSWER_ANYWAY,
        *forms.DEFLECTIONS,
        *(" ".join(exchange) for exchange in forms.SMALL_TALK),
        *(code("I") for code in forms.CODES),
        forms.cipher_prompt("I", [("I", "I")]),
        *forms.OPENINGS,
        *forms.REASONS,
        *forms.OFFERS,
        "And how about the And how do I it ?",
    ]
    slots = {"{verb}", "{object}"}
    plain_words = set(" ".join(plain).split()) - slots
    words = plain_words | set(" ".join(others).split()) - slots
    words |= {forms.encipher(word) for word in plain_words}
    return (*SPECIAL, *sorted(words))


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Make the tokenizer. It adds no token by itself: the chat template writes `<bos>`."""
    vocab = {word: i for i, word in enumerate(vocabulary())}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token=UNK))
    tokenizer.normalizer = normalizers.Replace(Regex(r"\s+"), " ")
    # Every punctuation mark is a token of its own, so that `append("vault")` reads like `append ( " vault " )`.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation("isolated")]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        unk_token=UNK,
        additional_special_tokens=[USER, ASSISTANT],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        padding_side="left",
        model_max_length=512,
    )
