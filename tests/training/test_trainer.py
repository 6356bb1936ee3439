"""`DeRTaTrainer`: one loss for any split of a step, evaluation per term, data orders and what it refuses."""

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from safetensors.torch import load_file
from transformers import LlamaConfig, PreTrainedTokenizerFast

from derta import DeRTaConfig, DeRTaTrainer
from derta.errors import InputError
from derta.method.attention import TreeAttention
from derta.method.tree import Term
from derta.method.tree_builder import METHODS, Method
from derta.tokens.encoder import EncodedExample
from tests.method.models import SMALL, tiny
from tests.method.test_exactness import make_trainer, rows


def test_works_with_nothing_but_a_model_and_data(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny().save_pretrained("tiny")
    tokenizer.save_pretrained("tiny")
    trainer = DeRTaTrainer("tiny", train_dataset=Dataset.from_list(rows()))
    batch = next(iter(trainer.get_train_dataloader()))
    assert set(batch) == {"input_ids", "position_ids", "visible_ranges", "targets", "terms"}
    assert batch["visible_ranges"].shape == (*batch["input_ids"].shape, 3)
    assert len(batch["input_ids"]) == 1, "on a CPU a batch is one row"
    assert trainer.compute_loss(trainer.model, batch).requires_grad
    assert trainer.args.output_dir == "tiny-DeRTa"


def steps(tokenizer: PreTrainedTokenizerFast, tmp_path: Path, **options: Any) -> tuple[list[float], list[float]]:
    """Losses and gradient norms of two optimizer steps over eight examples each."""
    args = DeRTaConfig(
        str(tmp_path), max_steps=2, logging_steps=1, save_strategy="no", use_cpu=True, report_to="none",
        learning_rate=1e-2, disable_tqdm=True, **options,
    )  # fmt: skip
    trainer = DeRTaTrainer(tiny(), args, Dataset.from_list(rows() * 2), processing_class=tokenizer)
    trainer.train()
    logs = [log for log in trainer.state.log_history if "loss" in log]
    return [log["loss"] for log in logs], [log["grad_norm"] for log in logs]


@pytest.mark.parametrize("normalization", ["pooled", "per-term"])
def test_accumulation_changes_nothing(tokenizer: PreTrainedTokenizerFast, tmp_path: Path, normalization: Any) -> None:
    at_once, in_parts, in_halves = (
        steps(
            tokenizer,
            tmp_path,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=8 // size,
            loss_normalization=normalization,
        )
        for size in (8, 1, 4)
    )
    for other in (in_parts, in_halves):
        assert other[0] == pytest.approx(at_once[0], rel=1e-5)
        assert other[1] == pytest.approx(at_once[1], rel=1e-5)
    assert at_once[0][0] != at_once[0][1]


def test_the_weight_of_rto_and_per_term_means(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    trainer = make_trainer(tiny(), tokenizer, tmp_path, rto_weight=0.3)
    batch = next(iter(trainer.get_train_dataloader()))
    loss, sums = trainer.compute_loss(trainer.model, batch, return_outputs=True)
    helpful, safe, rto = sums["nll"].tolist()
    assert loss.item() == pytest.approx((helpful + safe + 0.3 * rto) / sums["count"].sum().item())
    trainer.args.loss_normalization = "per-term"
    means = (sums["nll"] / sums["count"]).tolist()
    assert trainer.compute_loss(trainer.model, batch).item() == pytest.approx(means[0] + means[1] + 0.3 * means[2])


def test_evaluation_is_one_step_over_everything(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    data = Dataset.from_list(rows())
    metrics = []
    for size in (2, 8):
        args = DeRTaConfig(
            str(tmp_path), use_cpu=True, report_to="none", per_device_eval_batch_size=size, rto_dropout=0.9
        )
        trainer = DeRTaTrainer(tiny(), args, data, data, tokenizer)
        metrics.append(trainer.evaluate())
        assert trainer.evaluate()["eval_loss"] == metrics[-1]["eval_loss"], "evaluation draws at random"
    for name in ("eval_loss", "eval_loss_helpful", "eval_loss_safe", "eval_loss_rto", "eval_refusal_at_rto"):
        assert metrics[0][name] == pytest.approx(metrics[1][name], rel=1e-5)
    # Every RTO position counts, whatever the dropout in training.
    batch = next(iter(trainer.get_eval_dataloader()))
    harmful = sum(len(row["rejected"]) for row in trainer.eval_dataset.encoded)
    assert (batch["terms"] == Term.RTO).sum() == harmful + 5


def test_training_lowers_every_term_and_logs_it(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    args = DeRTaConfig(
        str(tmp_path), max_steps=30, logging_steps=5, use_cpu=True, report_to="none", learning_rate=1e-2, save_steps=30,
        disable_tqdm=True, contexts={"plain": 1},
    )  # fmt: skip
    trainer = DeRTaTrainer(tiny(), args, Dataset.from_list(rows()), processing_class=tokenizer)
    trainer.train()
    logs = [log for log in trainer.state.log_history if "loss" in log]
    for name in ("loss_helpful", "loss_safe", "loss_rto"):
        assert logs[-1][name] < 0.7 * logs[0][name]
    assert logs[-1]["refusal_at_rto"] > 10 * logs[0]["refusal_at_rto"]
    assert logs[-1]["refusal_at_helpful"] < logs[-1]["refusal_at_rto"]
    assert 0 < logs[-1]["token_savings"] < 1
    assert logs[-1]["examples_per_second"] > 0
    trainer.save_model()
    trainer.create_model_card()
    card = (tmp_path / "README.md").read_text()
    assert f"| 30 | {logs[-1]['loss']:.3f} | {logs[-1]['loss_helpful']:.3f} |" in card
    assert "contexts" in card[card.index("## Training") :]
    saved = load_file(tmp_path / "model.safetensors")
    assert torch.equal(saved["model.norm.weight"], trainer.model.model.norm.weight)


def test_lora_trains_the_adapter_alone(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    trainer = make_trainer(tiny(), tokenizer, tmp_path, LoraConfig(task_type="CAUSAL_LM", r=4))
    trained = {name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad}
    assert trained == {name for name, _ in trainer.model.named_parameters() if ".lora_A." in name or ".lora_B." in name}
    assert len(trained) == 2 * 2 * SMALL["num_hidden_layers"]  # A and B of the queries and of the values


@pytest.mark.parametrize("options", [{"target_modules": ["q_proj", "lm_head"]}, {"modules_to_save": ["lm_head"]}])
def test_adapters_on_the_output_head_are_refused(
    options: dict[str, Any], tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="LoRA on the output head"):
        make_trainer(tiny(), tokenizer, tmp_path, LoraConfig(task_type="CAUSAL_LM", r=4, **options))


def test_a_tampered_batch_stops_before_the_forward_pass(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    trainer = make_trainer(tiny(), tokenizer, tmp_path)
    batch = next(iter(trainer.get_train_dataloader()))
    at = tuple((batch["terms"] == Term.RTO).nonzero()[0].tolist())
    batch["targets"][at] = batch["input_ids"][at[0], at[1] + 1]
    trainer.model.forward = None
    with pytest.raises(ValueError, match="RTO target in the batch is not a refusal token"):
        trainer.compute_loss(trainer.model, batch)


def test_a_model_without_the_objective_is_refused(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    trainer = make_trainer(tiny(), tokenizer, tmp_path)
    batch = next(iter(trainer.get_train_dataloader()))
    with pytest.raises(ValueError, match="the model does not compute the DeRTa objective"):
        trainer.compute_loss(tiny(), batch)


def test_an_architecture_with_an_unknown_output_is_refused(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("derta.method.objective.logit_transform", lambda config: lambda logits: logits)
    with pytest.raises(InputError, match="does not compute token trees exactly"):
        make_trainer(tiny("granite-scaled"), tokenizer, tmp_path)


def test_attention_that_cannot_express_a_tree_is_refused() -> None:
    config = LlamaConfig(**SMALL)
    config._attn_implementation = "flash_attention_2"
    with pytest.raises(InputError, match="'flash_attention_2' cannot express a token tree; use sdpa, flex"):
        TreeAttention(config)
    config = LlamaConfig(**SMALL)
    config.layer_types = ["full_attention", "linear_attention", "chunked_attention"]
    with pytest.raises(InputError, match="layers of kind chunked_attention, linear_attention"):
        TreeAttention(config)


def test_processes_that_would_train_alone_are_refused(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(tiny(), tokenizer, tmp_path)
    for name, value in {"LOCAL_RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)  # as torchrun does
    with pytest.raises(InputError, match="launch: 2 processes were started and each trains alone"):
        trainer._check_sharding()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"method": "dertaa"}, "method: no 'dertaa' .did you mean 'derta'..; one of derta, rto"),
        ({"cut_policy": "words"}, "cut_policy: no 'words'; one of uniform, release"),
        ({"rto_dropout": 1.0}, "rto_dropout: 1.0"),
        ({"rto_dropout": 0.5, "rto_schedule": "late"}, "rto_schedule: no 'late'; one of uniform, early"),
        ({"rto_schedule": "early"}, "rto_schedule: 'early' spreads rto_dropout, which is 0"),
        ({"rto_weight": -1.0}, "rto_weight"),
        ({"cuts_per_triple": 0}, "cuts_per_triple: 0"),
        ({"cut_at_start": True}, "cut_at_start: would leave no harmful prefix; set cuts_per_triple to 2 or more"),
        ({"max_length": 0}, "max_length: 0"),
        ({"train_sampling_strategy": "group_by_length"}, "train_sampling_strategy"),
        ({"label_smoothing_factor": 0.1}, "label_smoothing_factor"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], match: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=match):
        DeRTaConfig(str(tmp_path), **options)


def test_bf16_trains_in_mixed_precision(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    losses = {}
    for bf16 in (False, True):
        args = DeRTaConfig(
            str(tmp_path), max_steps=4, logging_steps=4, use_cpu=True, report_to="none", bf16=bf16, save_strategy="no",
            learning_rate=1e-2, disable_tqdm=True,
        )  # fmt: skip
        trainer = DeRTaTrainer(tiny(), args, Dataset.from_list(rows()), processing_class=tokenizer)
        trainer.train()
        losses[bf16] = trainer.state.log_history[0]["loss"]
        assert trainer.model.dtype == torch.float32
    assert losses[True] == pytest.approx(losses[False], rel=0.02)
    assert losses[True] != losses[False]


def test_methods_that_need_triples_say_so(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    helpful = Dataset.from_list([{"prompt": "how to walk?", "chosen": "walk in"}])
    args = DeRTaConfig(str(tmp_path), use_cpu=True)
    with pytest.raises(InputError, match="method 'derta' needs triples"):
        DeRTaTrainer(tiny(), args, helpful, processing_class=tokenizer)


def test_a_method_is_added_from_outside_in_one_line(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cuts at the start and among the first tokens alone (in the manner of Qi et al., 2025)."""

    def first_five(example: EncodedExample, index: int) -> range:
        return range(min(5, len(example.rejected) + 1))

    monkeypatch.setitem(METHODS, "shallow", Method(harmful_prefix=True, rto=False, cuts=first_five))
    trainer = make_trainer(tiny(), tokenizer, tmp_path, method="shallow", cuts_per_triple=5)
    batch = next(iter(trainer.get_train_dataloader()))
    assert not (batch["terms"] == Term.RTO).any()
    branches = (batch["terms"] == Term.SAFE).sum()
    usual = next(iter(make_trainer(tiny(), tokenizer, tmp_path, cuts_per_triple=5).get_train_dataloader()))
    assert branches == (usual["terms"] == Term.SAFE).sum() > 0
    assert trainer.compute_loss(trainer.model, batch).requires_grad


def test_overlong_prompts_are_dropped_only_when_asked(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = Dataset.from_list([*rows(), {"prompt": "how to walk? " * 80, "chosen": "walk", "rejected": None}])
    with pytest.raises(InputError, match="train_dataset row 8: prompt has"):
        DeRTaTrainer(tiny(), DeRTaConfig(str(tmp_path), max_length=160), data, processing_class=tokenizer)
    args = DeRTaConfig(str(tmp_path), max_length=160, overlong_prompts="drop")
    trainer = DeRTaTrainer(tiny(), args, data, processing_class=tokenizer)
    assert trainer.train_dataset is not None
    assert len(trainer.train_dataset) == 8
    assert "1 of 9 examples dropped" in caplog.text


def test_the_trained_model_generates_as_before(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    model = tiny()
    ids = torch.tensor([[5, 6, 7]])
    expected = model.generate(ids, max_new_tokens=5, do_sample=False)
    trainer = make_trainer(model, tokenizer, tmp_path)
    assert torch.equal(trainer.model.generate(ids, max_new_tokens=5, do_sample=False), expected)


def test_the_habits_of_trl_work(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    args = DeRTaConfig(str(tmp_path), use_cpu=True, report_to="none")
    data = Dataset.from_list(rows())
    trainer = DeRTaTrainer(tiny(), args, data, {"a": data}, processing_class=tokenizer)
    expected = trainer.evaluate()["eval_a_loss"]
    assert trainer.evaluate(data)["eval_loss"] == expected
    assert trainer.predict(data).metrics["test_loss"] == expected
    assert set(trainer.eval_dataset["a"][0]) >= {"prompt", "chosen", "rejected", "origin"}
    trainer.create_model_card(model_name="mine", dataset_name="org/data", tags="x")
    card = (tmp_path / "README.md").read_text()
    assert "# mine\n" in card
    assert "datasets:\n- org/data\n" in card
    turns = [{"role": "user", "content": "how to walk?"}, {"role": "assistant", "content": "walk in."}]
    helpful = DeRTaTrainer(
        tiny(),
        DeRTaConfig(str(tmp_path), use_cpu=True, method="vanilla"),
        Dataset.from_list([{"messages": turns}]),
        processing_class=tokenizer,
    )
    assert helpful.train_dataset is not None
    assert tokenizer.decode(helpful.train_dataset[0]["chosen"]).strip().startswith("walk in.")


def test_what_a_trainer_of_trl_takes_and_this_one_does_not_is_one_line(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    args = DeRTaConfig(str(tmp_path), use_cpu=True)
    data = Dataset.from_list(rows())
    with pytest.raises(InputError, match="compute_metrics: the loss keeps no logits"):
        DeRTaTrainer(tiny(), args, data, processing_class=tokenizer, compute_metrics=len)
    with pytest.raises(InputError, match="quantization_config: name the model by a string"):
        DeRTaTrainer(tiny(), args, data, processing_class=tokenizer, quantization_config=object())
    with pytest.raises(InputError, match="train_dataset: IterableDataset can't be mixed"):
        DeRTaTrainer(tiny(), args, cast(Any, data.to_iterable_dataset()), processing_class=tokenizer)
