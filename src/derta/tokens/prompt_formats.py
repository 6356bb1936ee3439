"""Chat templates: rendered for any tokenizer, and given by name to base models that come without one.

A format is a Jinja chat template: it is set on the tokenizer and saved with the model, so that training, generation
and any server that loads the model later spell prompts the same way.
"""

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from derta.data.triples import Message
from derta.errors import InputError, did_you_mean, first_line

_BOS = "{%- if bos_token is defined and bos_token %}{{ bos_token }}{% endif %}"
_NO_SYSTEM = "{{ raise_exception('this prompt format has no system turn') }}"


def _template(user: str, assistant: str, generation_prompt: str = "", system: str = _NO_SYSTEM) -> str:
    return (
        f"{_BOS}{{%- for message in messages %}}"
        f"{{%- if message['role'] == 'user' %}}{user}"
        f"{{%- elif message['role'] == 'assistant' %}}{assistant}"
        f"{{%- else %}}{system}{{% endif %}}"
        f"{{%- endfor %}}"
        f"{{%- if add_generation_prompt %}}{generation_prompt}{{% endif %}}"
    )


_RELEASE_ANSWER = "{{ ' ' + message['content'] + eos_token }}"

PROMPT_FORMATS: dict[str, str] = {
    # The released checkpoints were trained on exactly this, whatever the model family ...
    "derta-release": _template("{{ '[INST] ' + message['content'] + ' [\\\\INST]' }}", _RELEASE_ANSWER),
    # ... and their evaluation asked with these newlines.
    "derta-release-eval": _template("{{ '[INST] \\n' + message['content'] + '\\n\\n [\\\\INST]' }}", _RELEASE_ANSWER),
    "alpaca": _template(
        "{{ '### Instruction:\\n' + message['content'] + '\\n\\n' }}",
        "{{ '### Response:\\n' + message['content'] + eos_token + '\\n\\n' }}",
        "{{ '### Response:\\n' }}",
        "{{ message['content'] + '\\n\\n' }}",
    ),
    "plain": _template(
        "{{ 'User: ' + message['content'] + '\\n\\n' }}",
        "{{ 'Assistant: ' + message['content'] + eos_token + '\\n\\n' }}",
        "{{ 'Assistant:' }}",
        "{{ message['content'] + '\\n\\n' }}",
    ),
}


def set_prompt_format(tokenizer: PreTrainedTokenizerBase, name: str | None) -> None:
    """Give `tokenizer` the chat template of a named prompt format; `None` keeps its own.

    Raises:
        InputError: The name is unknown, or the tokenizer has no template of its own and none is named.
    """
    if name is not None:
        if name not in PROMPT_FORMATS:
            raise InputError(
                f"prompt_format: unknown format {name!r}{did_you_mean(name, PROMPT_FORMATS)}; "
                f"one of {', '.join(PROMPT_FORMATS)}"
            )
        tokenizer.chat_template = PROMPT_FORMATS[name]
    elif not tokenizer.chat_template:
        raise InputError(
            f"{tokenizer.name_or_path}: the tokenizer has no chat template; "
            f"name one with --prompt_format ({', '.join(PROMPT_FORMATS)})"
        )


def render_chat(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    origin: str,
    *,
    add_generation_prompt: bool = True,
    chat_template_kwargs: dict[str, Any] | None = None,
) -> str:
    """Render a conversation with the tokenizer's chat template; `origin` says in an error where it comes from.

    Raises:
        InputError: The template refuses the conversation.
    """
    turns = [{"role": message["role"], "content": message["content"]} for message in messages]
    how = {"tokenize": False, "add_generation_prompt": add_generation_prompt, **(chat_template_kwargs or {})}
    try:
        return str(tokenizer.apply_chat_template(turns, **how))
    # A template is a program: jinja2 passes on whatever goes wrong in it.
    except Exception as error:
        raise InputError(f"{origin}: prompt: the chat template refuses these messages: {first_line(error)}") from error
