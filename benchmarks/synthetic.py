"""Examples of random tokens with the lengths of real ones, and a tokenizer that gives back those tokens."""

import random

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from derta.tokens.prompt_formats import PROMPT_FORMATS

SPECIAL = ["<s>", "</s>", "<pad>", "<unk>"]
REFUSAL = "Sorry"

LLAMAS: dict[str, dict[str, int]] = {
    "1b": {
        "vocab_size": 128256,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
    },
    "8b": {
        "vocab_size": 128256,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
    },
}
"""Llama's shapes."""

# Mean tokens, and the standard deviation of their logarithm.
PROMPT, REJECTED, CHOSEN, HELPFUL = (25, 0.4), (180, 0.6), (60, 0.3), (350, 0.6)


def word_tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    """A tokenizer whose tokens are the words w4, w5, …, and the refusal token."""
    words = [*SPECIAL, *(f"w{i}" for i in range(len(SPECIAL), vocabulary - 1)), REFUSAL]
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        chat_template=PROMPT_FORMATS["plain"],
    )


def examples(
    triples: int,
    helpful: int,
    vocabulary: int,
    seed: int = 0,
    *,
    rejected: tuple[float, float] = REJECTED,
    chosen: tuple[float, float] = CHOSEN,
    longest: int = 900,
) -> list[dict[str, str | None]]:
    """Triples and helpful examples in TRL's preference format, in random order."""
    draw = random.Random(seed)

    def text(length: tuple[float, float]) -> str:
        mean, spread = length
        count = round(mean * draw.lognormvariate(-spread * spread / 2, spread))
        return " ".join(f"w{draw.randrange(len(SPECIAL), vocabulary - 1)}" for _ in range(min(max(count, 4), longest)))

    rows: list[dict[str, str | None]] = [
        {"prompt": text(PROMPT), "chosen": f"{REFUSAL} {text(chosen)}", "rejected": text(rejected)}
        for _ in range(triples)
    ]
    rows += [{"prompt": text(PROMPT), "chosen": text(HELPFUL), "rejected": None} for _ in range(helpful)]
    draw.shuffle(rows)
    return rows
