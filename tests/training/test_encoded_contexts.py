"""Examples in contexts as the trainer reads them: the same for a seed and an epoch, and nothing but r, answer and
refusal tokens is ever a target."""

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerFast

from derta.contexts import CONTEXTS
from derta.data.triples import Example
from derta.errors import InputError
from derta.method.tree import NO_TARGET, Term
from derta.tokens.encoder import Encoder
from derta.training import dataset as module
from derta.training.config import DeRTaConfig
from derta.training.dataset import encode_dataset
from derta.training.encoded_contexts import encoded_contexts, read_role_plays, read_small_talk
from tests.conftest import WriteLines
from tests.method.models import tiny
from tests.method.test_exactness import gradients, make_trainer, rows, separate_loss

ALL = {"plain": 1, **dict.fromkeys(CONTEXTS, 3)}


def dataset(tokenizer: PreTrainedTokenizerFast, tmp_path: Path, **options: Any) -> Any:
    return make_trainer(tiny(), tokenizer, tmp_path, **{"contexts": ALL, **options}).train_dataset


def test_only_responses_and_refusal_tokens_are_ever_targets(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trees = dataset(tokenizer, tmp_path)
    seen = set()
    for epoch in range(12):
        for index, row in enumerate(rows()):
            drawn = trees.draw(index, epoch)
            tree = trees[epoch, index]
            seen.add(drawn.context)
            for segment in range(max(tree.segments) + 1):
                places = [i for i, s in enumerate(tree.segments) if s == segment]
                learnt = [tree.targets[i] for i in places if tree.terms[i] in (Term.HELPFUL, Term.SAFE)]
                text = tokenizer.decode(learnt, skip_special_tokens=True).strip()
                if drawn.context != "encoded" or row["rejected"]:
                    assert text in ("", row["chosen"]), drawn.context
            refusals = {t for t, term in zip(tree.targets, tree.terms, strict=True) if term == Term.RTO}
            assert refusals <= set(trees.builder.refusals.all)
            read = len(drawn.example.prompt) - 1
            assert all(target == NO_TARGET for target in tree.targets[:read]), "a token of the frame is a target"
    assert seen == set(ALL)


def test_loss_and_gradients_in_contexts_equal_separate_sequences(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    trainer = make_trainer(tiny(), tokenizer, tmp_path, contexts=ALL)
    assert {trainer.train_dataset.draw(index, 0).context for index in range(8)} != {"plain"}
    batch = next(iter(trainer.get_train_dataloader()))
    trainer.model.eval()
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    found = gradients(trainer.model)
    expected = separate_loss(trainer.model, batch)
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
    apart = gradients(trainer.model)
    assert (found - apart).norm() / apart.norm() < 1e-5


def test_trees_depend_on_seed_and_epoch_and_not_on_what_was_read_before(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    first, again, other = (dataset(tokenizer, tmp_path, seed=seed) for seed in (1, 1, 2))
    keys = [(epoch, index) for epoch in range(3) for index in range(8)]
    trees = [first[key] for key in keys]
    assert trees == [again[key] for key in reversed(keys)][::-1]
    assert trees != [other[key] for key in keys]
    assert trees[:8] != trees[8:16]


def test_without_contexts_nothing_is_drawn_nor_encoded_again(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for option in (None, "none", {"plain": 1}):
        trees = dataset(tokenizer, tmp_path, contexts=option)
        with monkeypatch.context() as patched:
            patched.setattr(Encoder, "encode_batch", None)
            assert trees[0, 0] is not None
        assert trees.contexts is None


def test_a_context_that_would_cost_harmful_tokens_is_left_out(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    trees = dataset(tokenizer, tmp_path, contexts={"role-play": 1}, max_length=128)
    drawn = [trees.draw(index, 0) for index in range(8)]
    assert {each.context for each in drawn} == {"role-play"}
    assert not any(each.made and each.example.num_truncated for each in drawn)
    assert not all(each.made for each in drawn)


def test_contexts_of_examples_that_stay_when_others_are_dropped(tokenizer: PreTrainedTokenizerFast) -> None:
    data = rows()
    data[1]["prompt"] *= 60
    source = Dataset.from_list(data)
    encoder = Encoder(tokenizer, max_length=400)
    encoded = encode_dataset(source, encoder, name="train", drop_overlong=True)
    assert len(encoded) == 7
    config = DeRTaConfig("out", contexts={"small-talk": 1}, use_cpu=True, report_to="none")
    contexts = encoded_contexts(source, encoded, encoder, config, "train")
    trees = module.TreeDataset(encoded, None, contexts)
    for index, origin in enumerate(encoded["origin"]):
        drawn = trees.draw(index, 0)
        assert drawn.example.origin == origin
        assert tokenizer.decode(drawn.example.prompt).count(data[int(origin.split()[-1])]["prompt"])


def test_raw_text_has_no_chat_tokens_and_spells_the_refusal_as_it_follows(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    encoder = dataset(tokenizer, tmp_path).contexts._encoder
    for text, form in (("The answer:", "word"), ("The answer:\n\n", "line")):
        raw = Example([{"role": "user", "content": text}], "Sorry, I won't.", "walk in", None, "row", raw=True)
        encoded = encoder(raw)
        assert tokenizer.decode(encoded.prompt) == text
        assert encoded.opens_after == form
        assert tokenizer.decode(encoded.chosen).startswith(" Sorry" if form == "word" else "Sorry")
    begun = Example([{"role": "user", "content": "how?"}], "walk in", None, None, "row", begun="Of course:")
    encoded = encoder(begun)
    assert tokenizer.decode(encoded.prompt).endswith("Of course:")
    assert tokenizer.decode(encoded.chosen).startswith(" walk in")


def test_a_users_role_plays_and_small_talk(
    write_rows: WriteLines, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    plays = str(write_rows([{"template": "turn the key: {prompt}"}], "plays.jsonl"))
    talk = str(write_rows([{"prompt": "walk?", "chosen": "walk."}], "talk.jsonl"))
    assert [say("in?") for say in read_role_plays(plays)] == ["turn the key: in?"]
    assert read_small_talk(talk) == [("walk?", "walk.")]
    trees = dataset(tokenizer, tmp_path, contexts={"role-play": 1}, context_role_plays=plays, max_length=1024)
    texts = [tokenizer.decode(trees.draw(index, epoch).example.prompt) for index in range(8) for epoch in range(9)]
    assert any("turn the key: how to" in text for text in texts)
    bad = str(write_rows([{"template": "no place"}], "bad.jsonl"))
    with pytest.raises(InputError, match=r"bad\.jsonl:1: template has no place for the request"):
        read_role_plays(bad)
    with pytest.raises(InputError, match="context_role_plays: no example stands in role-play"):
        dataset(tokenizer, tmp_path, contexts={"noise": 1}, context_role_plays=plays)
    refusing = str(write_rows([{"prompt": "how?", "chosen": "Sorry, no.", "rejected": "walk in"}], "triples.jsonl"))
    with pytest.raises(InputError, match="small talk is one prompt and its answer"):
        read_small_talk(refusing)
