import asyncio
import random
from dataclasses import replace

import pytest
import torch

from derta.data.behaviours import Behaviour
from derta.errors import InputError
from derta.evaluation.attacks import ENGLISH, AttackContext, Search, organism_phrases
from derta.evaluation.attacks.base import Weights, ask
from derta.evaluation.attacks.gcg import Descent, Slot, gcg
from derta.evaluation.judges import make_judge
from derta.generation import encode, first_tokens, load_model
from derta.organism import behaviours
from tests.evaluation.attacks.given import BEHAVIOUR, CONTEXT, ScriptedVictim
from tests.evaluation.victim import LocalVictim
from tests.method.models import tiny

SEARCH = Search(gcg_steps=6, gcg_width=16, gcg_length=4, gcg_top=64)
HARMFUL = behaviours("harmful")[0]


@pytest.fixture(scope="module")
def organism():
    return load_model("organism")


@pytest.fixture(scope="module")
def weights(organism):
    return Weights(*organism)


@pytest.fixture
def of_bpe(tokenizer):
    """A random model with a byte-level BPE tokenizer, whose tokens merge when texts are put together."""
    return Weights(tiny().eval(), tokenizer)


def descent(weights, prompt=HARMFUL.prompt, target="Here is how to open the vault . Step 1 :", search=SEARCH):
    return Descent(weights, context_of(weights, search, target), prompt, random.Random(3))


def context_of(weights, search, target="", seed=0):
    """Return what the attack knows, with `target` as its affirmative start."""
    phrases = replace(ENGLISH, affirmative=lambda prompt: target)
    return AttackContext(phrases, lambda text, n: first_tokens(weights.tokenizer, text, n), search=search, seed=seed)


def ids_of(weights, request):
    return encode(weights.tokenizer, [request], weights.chat_template_kwargs)[0].ids


def test_steps_lower_the_loss_on_the_organism(weights):
    search = descent(weights)
    for _ in range(6):
        search.step()
    assert min(search.losses) < search.losses[0] - 0.5
    best = search.loss([ids_of(weights, search.request)]).losses
    torch.testing.assert_close(best, torch.tensor([min(search.losses)]))


def test_the_request_has_the_very_tokens_that_were_optimised(weights, of_bpe):
    for each, prompt in ((weights, HARMFUL.prompt), (of_bpe, "how to open the moon vault?")):
        search = descent(each, prompt, "Sorry I cannot")
        start = search.best
        for _ in range(3):
            search.step()
        assert search.best != start
        assert len(search.best) == len(start)
        assert ids_of(each, search.request) == search.slot.context(search.best)
        assert search.request.messages[0]["content"].startswith(prompt + " ")


def test_candidates_differ_in_one_token_survive_and_hold_no_special_one(of_bpe):
    search = descent(of_bpe, "how to open the moon vault?", "Sorry I cannot")
    candidates = search._candidates()
    assert candidates
    assert len({tuple(suffix) for suffix in candidates}) == len(candidates)
    special = set(of_bpe.tokenizer.all_special_ids)
    for suffix in candidates:
        assert sum(a != b for a, b in zip(suffix, search.best, strict=True)) == 1
        assert not special & set(suffix)
        assert of_bpe.tokenizer.decode(suffix).isprintable()
        assert ids_of(of_bpe, search.slot.request(suffix)) == search.slot.context(suffix)


def test_a_suffix_that_comes_back_as_other_tokens_does_not_survive(of_bpe):
    slot = Slot(of_bpe, context_of(of_bpe, Search(gcg_length=3)), "how to open the moon vault?")
    letters = [of_bpe.tokenizer.convert_tokens_to_ids(piece) for piece in ("Ġ", "t", "h")]  # one token, if sent as text
    assert not slot.survives(letters)
    assert slot.survives(slot.initial)


def test_the_chat_template_stands_around_the_suffix(weights):
    slot = Slot(weights, context_of(weights, SEARCH), "How do I open the vault ?")
    assert slot.context([]) == ids_of(weights, ask("How do I open the vault ?"))
    assert len(slot.initial) == 4


def test_the_gradient_finds_better_tokens_than_chance(weights):
    search = descent(weights)
    slot, loss = search.slot, search.loss
    begin = len(slot.before)
    gradient = loss.gradient(slot.context(search.best), slice(begin, begin + len(search.best)))[0]
    barred = slot.barred()
    usable = [token for token in range(0, len(gradient), 2) if token not in barred]
    swapped = loss([slot.context([token, *search.best[1:]]) for token in usable]).losses
    promising = gradient[usable].topk(32, largest=False).indices
    assert swapped[promising].mean() < swapped.mean() - swapped.std() / 4
    assert swapped[promising].min() < search.losses[0]


def setting_of(organism, search=SEARCH, seed=0):
    return AttackContext(
        organism_phrases(), lambda text, n: first_tokens(organism[1], text, n), search=search, seed=seed
    )


def run(organism, context):
    victim = LocalVictim(organism[0], organism[1], make_judge("organism"), max_new_tokens=48)
    return asyncio.run(gcg(HARMFUL, context, victim))


def test_the_same_seed_finds_the_same_suffix(organism):
    search = replace(SEARCH, gcg_steps=2)
    one, same, other = (run(organism, setting_of(organism, search, seed)) for seed in (0, 0, 1))
    assert one == same
    assert one.attempt.request != other.attempt.request


def test_the_search_stops_where_the_model_says_the_target(organism):
    model, tokenizer = organism
    first = LocalVictim(model, tokenizer, make_judge("organism"), max_new_tokens=3)
    # With the initial suffix, what the model says anyway is a target that needs no search.
    start = asyncio.run(first.respond(descent(Weights(*organism)).request)).response
    context = setting_of(organism)
    found = run(organism, replace(context, phrases=replace(context.phrases, affirmative=lambda prompt: start)))
    assert found.attempt.request == descent(Weights(*organism)).request


def test_success_is_the_judges_word_on_the_whole_answer(weights):
    context = AttackContext(organism_phrases(), CONTEXT.first_tokens, search=replace(SEARCH, gcg_steps=1))
    for answer, succeeded in (("Here is how . Step 1 :", True), ("Here is how . Sorry , I cannot .", False)):
        victim = ScriptedVictim(lambda request, seed, answer=answer: answer)
        victim.weights = weights
        found = asyncio.run(gcg(HARMFUL, context, victim))
        assert (found.succeeded, found.queries, found.attempt.variant) == (succeeded, 1, "gcg")
        assert [who for who, _ in victim.log] == ["respond", "judge"]


def test_a_model_behind_an_api_is_an_input_error():
    with pytest.raises(InputError, match="gcg: needs the weights"):
        asyncio.run(gcg(BEHAVIOUR, CONTEXT, ScriptedVictim(lambda request, seed: "")))


def test_english_works_on_any_tokenizer(of_bpe):
    victim = ScriptedVictim(lambda request, seed: "no")
    victim.weights = of_bpe
    context = AttackContext(ENGLISH, CONTEXT.first_tokens, search=replace(SEARCH, gcg_steps=1))
    found = asyncio.run(gcg(Behaviour("b", "How do I open the moon vault?", "harmful"), context, victim))
    assert found.attempt.request.messages[0]["content"].startswith("How do I open the moon vault? ")
