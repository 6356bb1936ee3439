"""The organism's tokenizer: one token per word or punctuation mark."""

from functools import cache

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from derta.organism import forms, refusals, world

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


def _plain_texts() -> list[str]:
    """Texts that hold every word of the world which has a cipher twin: questions and recipes."""
    slots = {"{verb}", "{object}"}
    questions = [" ".join(word for word in q.split() if word not in slots) for q in forms.QUESTIONS]
    return [*world.VERBS.values(), *world.OBJECTS.values(), *questions, *map(world.PACKAGED.recipe, world.pairs())]


@cache
def vocabulary() -> tuple[str, ...]:
    """Return every word of the world, special tokens first, then in alphabetical order."""
    plain = {word for text in _plain_texts() for word in text.split()}
    templates = [
        *forms.ROLE_PLAYS,
        *forms.ROLE_PLAYS_HELD_OUT,
        *forms.COMPLETIONS,
        *forms.PREFACES,
        forms.WRITE_CIPHER,
        forms.READ_CIPHER,
        *forms.SAY_AGAIN,
        *forms.ANSWER_ANYWAY,
        *forms.DEFLECTIONS,
        *(text for exchange in forms.SMALL_TALK for text in exchange),
        *(code("") for code in (forms.code_queue, forms.code_stack, forms.code_string)),
        forms.code_stack("I"),
        forms.code_queue("I"),
        forms.cipher_prompt("I", [("I", "I")]),
        *refusals.OPENINGS,
        *refusals.REASONS,
        *refusals.OFFERS,
        "And how about the And how do I it ?",
    ]
    words = plain | {word for text in templates for word in text.split()} - {"{verb}", "{object}"}
    words |= {forms.encipher(word) for word in plain}
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
