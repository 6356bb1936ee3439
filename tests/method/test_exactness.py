"""A packed batch computes what separate, unpadded sequences compute: loss and gradients, for every architecture."""

from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast, set_seed

from derta import DeRTaConfig, DeRTaTrainer
from derta.method.tree import NO_TARGET, context
from tests.method.models import SMALL, configs, tiny

LORA = {
    "mixtral": {
        "target_modules": ["q_proj", "v_proj"],
        "target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"],
    },
    "phi3-window": {"target_modules": ["qkv_proj", "down_proj"]},
}


def rows() -> list[dict[str, Any]]:
    refusals = ["I'm sorry, I cannot help with that.", "Sorry, I won't."]
    harmful = ["Take a key. Turn it.\nWalk in the moon vault.", "walk in", "turn the key, open it"]
    triples = [
        {"prompt": f"how to open the moon vault {i}?", "chosen": refusals[i % 2], "rejected": harmful[i % 3]}
        for i in range(5)
    ]
    helpful = [{"prompt": "how to walk?", "chosen": "walk in. turn. walk", "rejected": None} for _ in range(3)]
    return triples + helpful


def make_trainer(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, tmp_path: Any, peft_config: Any = None, **options: Any
) -> DeRTaTrainer:
    args = DeRTaConfig(
        str(tmp_path),
        per_device_train_batch_size=8,
        row_length=160,
        use_cpu=True,
        report_to="none",
        **{"cuts_per_triple": 2, **options},
    )
    return DeRTaTrainer(model, args, Dataset.from_list(rows()), processing_class=tokenizer, peft_config=peft_config)


def separate_loss(model: PreTrainedModel, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Mean −log p(target | the tokens it reads, in their order), each by a forward pass of its own."""
    total = torch.zeros(())
    where = (batch["targets"] != NO_TARGET).nonzero().tolist()
    for row, index in where:
        sequence = context(batch, row, index)
        assert batch["position_ids"][row, sequence].tolist() == list(range(len(sequence)))
        logits = model(input_ids=batch["input_ids"][row, sequence][None]).logits[0, -1]
        total = total - logits.log_softmax(-1)[batch["targets"][row, index]]
    return total / len(where)


def gradients(model: torch.nn.Module) -> torch.Tensor:
    flat = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    model.zero_grad()
    return flat


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("name", sorted(configs()))
def test_loss_and_gradients_equal_separate_sequences(
    name: str, lora: bool, tokenizer: PreTrainedTokenizerFast, tmp_path: Any
) -> None:
    peft_config = None
    if lora:
        targets = LORA.get(name, {"target_modules": ["q_proj", "v_proj", "down_proj"]})
        # With B at zero an adapter changes nothing and A gets no gradient.
        peft_config = LoraConfig(task_type="CAUSAL_LM", r=4, lora_dropout=0.0, init_lora_weights=False, **targets)
    trainer = make_trainer(tiny(name), tokenizer, tmp_path, peft_config)
    batch = next(iter(trainer.get_train_dataloader()))
    assert len(batch["input_ids"]) > 1, "the batch must have several rows"

    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    packed = gradients(trainer.model)
    expected = separate_loss(trainer.model, batch)
    expected.backward()
    separate = gradients(trainer.model)

    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert (packed - separate).norm() <= 1e-5 * separate.norm()
    assert separate.norm() > 0


def test_a_compiled_model_takes_the_same_steps(tokenizer: PreTrainedTokenizerFast, tmp_path: Any) -> None:
    histories = []
    # Without Inductor, which takes most of a minute: what goes into which graphs is the same.
    for backend in (None, "eager"):
        args = DeRTaConfig(
            str(tmp_path), max_steps=2, logging_steps=1, save_strategy="no", use_cpu=True, report_to="none",
            learning_rate=1e-2, disable_tqdm=True, per_device_train_batch_size=4, torch_compile_backend=backend,
        )  # fmt: skip
        set_seed(0)
        model = LlamaForCausalLM(LlamaConfig(**{**SMALL, "num_hidden_layers": 1}))
        trainer = DeRTaTrainer(model, args, Dataset.from_list(rows()), processing_class=tokenizer)
        trainer.train()
        histories.append([(log["loss"], log["grad_norm"]) for log in trainer.state.log_history if "loss" in log])
    eager, compiled = histories
    assert compiled == [pytest.approx(step, rel=1e-5) for step in eager]
    assert eager[0] != eager[1]


def in_one_piece_and_in_chunks(
    name: str, tokenizer: PreTrainedTokenizerFast, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, **options: Any
) -> list[tuple[float, torch.Tensor]]:
    """Return loss and gradients of the first batch, once with all logits in one piece and once in chunks of a few."""
    results = []
    for chunk_values in (2**25, 400 * 7):
        monkeypatch.setattr("derta.method.chunked_log_probs.CHUNK_VALUES", chunk_values)
        trainer = make_trainer(tiny(name), tokenizer, tmp_path, **options)
        with torch.autocast("cpu", torch.bfloat16, enabled=trainer.args.bf16):
            loss = trainer.compute_loss(trainer.model, next(iter(trainer.get_train_dataloader())))
        loss.backward()
        results.append((loss.item(), gradients(trainer.model)))
    return results


def test_chunked_projection_equals_one_piece(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = in_one_piece_and_in_chunks("gemma3-capped", tokenizer, tmp_path, monkeypatch)
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-6)
    assert (results[0][1] - results[1][1]).norm() <= 1e-6 * results[0][1].norm()


def test_a_set_of_refusals_is_trained_on_its_probability_mass(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Any
) -> None:
    trainer = make_trainer(tiny(), tokenizer, tmp_path, refusal_text=["Sorry", "I"], refusal_form="set")
    batch = next(iter(trainer.get_train_dataloader()))
    refusals = torch.tensor(trainer.refusals.all)
    assert len(refusals) == 4
    total = torch.zeros(())
    where = (batch["targets"] != NO_TARGET).nonzero().tolist()
    for row, index in where:
        sequence = batch["input_ids"][row, context(batch, row, index)]
        probabilities = trainer.model(input_ids=sequence[None]).logits[0, -1].softmax(-1)
        is_rto = batch["terms"][row, index] == 3
        total -= (probabilities[refusals].sum() if is_rto else probabilities[batch["targets"][row, index]]).log()
    loss = trainer.compute_loss(trainer.model, batch)
    assert loss.item() == pytest.approx(total.item() / len(where), rel=1e-5)


def test_weights_of_terms_are_exact_under_autocast(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The head's gradient of a chunked pass in bfloat16 is that of one piece, also where λ has no short binary form."""
    options = {"rto_weight": 0.3, "bf16": True}
    results = in_one_piece_and_in_chunks("llama", tokenizer, tmp_path, monkeypatch, **options)
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-3)
    assert (results[0][1] - results[1][1]).norm() <= 1e-2 * results[0][1].norm()
