"""Losses of a target: batches, paddings and the cache change nothing; gradients are those of the one-hot tokens."""

from contextlib import contextmanager

import pytest
import torch
import torch.nn.functional as F

from derta.errors import InputError
from derta.evaluation.attacks.base import Weights
from derta.evaluation.attacks.target_loss import TargetLoss, weights_of
from tests.evaluation.attacks.given import ScriptedVictim
from tests.method.models import tiny

TARGET = [11, 12, 13]
PREFIX = [5, 6, 7, 8, 9, 10, 4, 3, 2, 1]
SAME_LENGTH = [[*PREFIX, token, 20, 21] for token in range(30, 37)]
OF_MANY_LENGTHS = [PREFIX + list(range(40, 40 + length)) for length in (1, 9, 4, 2, 17)]
STRANGERS = [[5, 6], [7, 8, 9, 10, 11]]


def alone(model, context, target=TARGET):
    """The loss of one context, without a batch, a cache or padding, from the model's whole logits."""
    with torch.no_grad():
        logits = model(torch.tensor([context + target]), use_cache=False).logits[0].float()
    return F.cross_entropy(logits[len(context) - 1 : -1], torch.tensor(target))


@pytest.mark.parametrize(
    "name", ["llama", "llama-eager", "mistral-window", "mixtral", "qwen3-mixed-window", "gemma2-capped", "gemma3"]
)
def test_each_loss_is_that_of_a_pass_of_its_own(name):
    model = tiny(name).eval()
    for contexts in (SAME_LENGTH, OF_MANY_LENGTHS, STRANGERS, [PREFIX], [[3], [4]], [PREFIX, PREFIX]):
        scores = TargetLoss(Weights(model, None), TARGET)(contexts)
        expected = torch.stack([alone(model, context) for context in contexts])
        torch.testing.assert_close(scores.losses, expected, atol=1e-5, rtol=1e-5)


def test_a_target_is_said_when_greedy_decoding_says_all_of_it():
    model = tiny().eval()
    ids = torch.tensor([PREFIX])
    answer = model.generate(ids, max_new_tokens=3, do_sample=False, eos_token_id=None, pad_token_id=2)[0, -3:].tolist()
    wrong_end = [*answer[:2], (answer[2] + 1) % 400]
    assert TargetLoss(Weights(model, None), answer)([PREFIX]).said.tolist() == [True]
    assert TargetLoss(Weights(model, None), wrong_end)([PREFIX]).said.tolist() == [False]


def test_memory_that_runs_out_halves_the_passes(monkeypatch):
    model = tiny().eval()
    expected = TargetLoss(Weights(model, None), TARGET)(SAME_LENGTH)
    forward, widths = model.forward, []

    def small(*args, **kwargs):
        widths.append(len(kwargs["input_ids"]))
        if widths[-1] > 2:
            raise torch.OutOfMemoryError("none left")
        return forward(*args, **kwargs)

    monkeypatch.setattr(model, "forward", small)
    scores = TargetLoss(Weights(model, None), TARGET)(SAME_LENGTH)
    assert widths == [1, 7, 3, 1, 1, 1, 1, 1, 1, 1]
    torch.testing.assert_close(scores.losses, expected.losses)
    monkeypatch.setattr(model, "forward", lambda **_: (_ for _ in ()).throw(torch.OutOfMemoryError("none at all")))
    with pytest.raises(torch.OutOfMemoryError):
        TargetLoss(Weights(model, None), TARGET)(SAME_LENGTH)


@pytest.mark.parametrize("name", ["llama", "mistral-window", "gemma2-capped"])
def test_the_gradient_is_the_slope_of_the_loss(name):
    model = tiny(name).double().eval()
    context, places = SAME_LENGTH[0], slice(8, 12)
    gradient = TargetLoss(Weights(model, None), TARGET).gradient(context, places)
    assert gradient.shape == (4, 400)
    table = model.get_input_embeddings()
    ids = torch.tensor([context + TARGET[:-1]])
    step = 1e-3

    def loss(place, token, step):
        # A little of another token, mixed into the one-hot vector.
        with torch.no_grad():
            embeddings = table(ids)
            embeddings[0, place] += step * table.weight[token]
            logits = model(inputs_embeds=embeddings, use_cache=False).logits[0, len(context) - 1 :]
        return F.cross_entropy(logits, torch.tensor(TARGET))

    for place, token in zip(range(8, 12), gradient.abs().argmax(1).tolist(), strict=True):
        slope = (loss(place, token, step) - loss(place, token, -step)) / (2 * step)
        # Norms are computed in float32 whatever the model is in.
        torch.testing.assert_close(gradient[place - 8, token], slope, atol=1e-4, rtol=0.02)


def test_the_model_stays_as_it_is():
    model = tiny().eval()
    frozen = next(model.parameters()).requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    flags = [parameter.requires_grad for parameter in model.parameters()]
    loss = TargetLoss(Weights(model, None), TARGET)
    loss(SAME_LENGTH)
    loss.gradient(PREFIX, slice(2, 4))
    assert not frozen.requires_grad
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_passes_keep_others_off_the_model():
    model = tiny().eval()
    held = []

    @contextmanager
    def exclusive():
        held.append(True)
        yield
        held.append(False)

    forward = model.forward

    def watched(*args, **kwargs):
        assert held[-1]
        return forward(*args, **kwargs)

    model.forward = watched
    loss = TargetLoss(Weights(model, None, exclusive=exclusive), TARGET)
    loss(SAME_LENGTH)
    loss.gradient(PREFIX, slice(2, 4))
    assert held == [True, False] * 3


def test_an_api_has_no_gradients():
    with pytest.raises(InputError, match="gcg: needs the weights of the attacked model, not an API"):
        weights_of(ScriptedVictim(lambda request, seed: ""), "gcg")
