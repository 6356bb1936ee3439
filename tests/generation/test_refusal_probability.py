"""p(refuse) along an answer is what the model gives, place by place."""

from typing import Any

import pytest
import torch

from derta.generation import ChatRequest, RawRequest
from derta.generation import refusal_probability as module
from derta.generation.refusal import refusal_ids
from derta.generation.refusal_probability import encode_answers, refusal_probabilities

CHAT: Any = ({"role": "user", "content": "open the vault"},)
ANSWERS: list[Any] = [
    (ChatRequest(CHAT), "take a key"),
    (ChatRequest(CHAT, "Sure, "), "take a longer key and turn it twice"),
    (RawRequest("Step 1:"), " take"),
    (ChatRequest(CHAT), ""),
]


def test_an_answer_is_watched_from_where_the_model_began(tokenizer):
    watched = encode_answers(tokenizer, ANSWERS)
    texts = ["take a key", "take a longer key and turn it twice", "take", ""]
    assert [tokenizer.decode(each.response).strip() for each in watched] == texts
    assert tokenizer.decode(watched[1].context).endswith("Sure, ")


def test_probabilities_are_those_of_one_answer_at_a_time(model, tokenizer, monkeypatch):
    watched = encode_answers(tokenizer, ANSWERS)
    ids = (70, 71)
    found = refusal_probabilities(model, watched, ids)
    for each, probabilities in zip(watched, found, strict=True):
        assert len(probabilities) == len(each.response) + 1
        with torch.no_grad():
            logits = model(torch.tensor([each.context + each.response])).logits[0].softmax(-1)
        expected = logits[len(each.context) - 1 :, list(ids)].sum(-1)
        assert torch.allclose(torch.tensor(probabilities), expected, atol=1e-5)
    monkeypatch.setattr(module, "_MAX_LOGITS", 1)
    for alone, together in zip(refusal_probabilities(model, watched, ids), found, strict=True):
        assert alone == pytest.approx(together, abs=1e-5)


def test_the_refusal_tokens_are_those_of_the_models_training(tmp_path):
    import json
    import shutil

    from derta.generation import load_tokenizer
    from derta.organism import path

    organism = load_tokenizer("organism")
    sorry, answer = organism.convert_tokens_to_ids(["Sorry", "I"])
    assert refusal_ids("organism", organism) == (sorry,)
    copy = tmp_path / "tuned"
    shutil.copytree(path(), copy)
    settings = {"refusal_text": ["Sorry", "I"], "refusal_form": "set"}
    (copy / "derta.json").write_text(json.dumps({"settings": settings}))
    assert refusal_ids(str(copy), organism) == (sorry, answer)
