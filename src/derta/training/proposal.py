"""`derta recipes new`: a recipe for a model and data at hand, each choice with its reason.

Whatever can be found out is: nothing is asked. The choices are those of the paper where it made any, and the rest
follows from sizes: of the model, of the data, and of this machine's memory.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import yaml
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from derta.data.arrow import examples_of
from derta.data.cached_source import Loaded
from derta.data.triples import Example
from derta.errors import InputError
from derta.generation.loading import load_tokenizer
from derta.method.tree_builder import METHODS
from derta.names import model_path
from derta.tokens.encoder import Encoder, RefusalForm, unknown_tokens
from derta.tokens.prompt_formats import set_prompt_format
from derta.tokens.refusal_tokens import refusal_tokens
from derta.training.dry_run import FREE, Machine, Memory, empty_model, estimate_memory
from derta.training.options import TrainOptions, parse_options, recipe_arguments
from derta.training.run import read_source

_SAMPLE = 2000
"""Examples of a source that are measured at most."""
_REFUSALS: tuple[tuple[str, RefusalForm], ...] = (
    ("Sorry", "context"),
    ("Sorry", "bare"),
    ("I", "context"),
    ("I", "bare"),
)
_SMALL_STEPS, _FEW_STEPS = 600, 200
"""Steps that a small model gets at least, and any other one with few data."""
_SMALL, _STEP, _SMALL_STEP, _FEW = 50_000_000, 128, 32, 4000
"""Parameters of a small model (an organism); examples of a step, also with few data, and how many are few."""
_BELOW_LARGE = 1_000_000_000
"""Parameters below which LoRA learns ten times as fast as the paper's 8 B."""
_CPU_LENGTH = 256
"""Tokens of an example on a CPU: a minute more of each answer teaches less than another answer."""


@dataclass(frozen=True)
class Choice:
    """A line of a recipe, and why it is as it is."""

    name: str
    value: Any
    why: str


@dataclass(frozen=True)
class Measured:
    """The examples of all sources: how many of each kind, and how long they are in tokens of the model.

    `least` is the longest of what is never cut (a prompt, and a safe response), `mostly_least` what 98 % of it keep to.
    """

    triples: int
    helpful: int
    longest: int
    least: int
    mostly_least: int
    common: int
    unknown: int


def propose(model: str, data: Sequence[str], *, method: str, lora: bool | None, machine: Machine) -> list[Choice]:
    """Return the lines of a recipe.

    Args:
        model: A directory, a hub name, or `organism`.
        data: Files or names of data sets.
        method: What to train on.
        lora: Whether to train an adapter or all weights; `None` to take what fits.
        machine: What the run is for.

    Raises:
        InputError: The model or a source can't be used, or no refusal text begins with a token of its own.
    """
    tokenizer = load_tokenizer(model_path(model))
    prompts = list(_prompts(tokenizer))
    given: dict[str, Any] = {choice.name: choice.value for choice in prompts}
    set_prompt_format(tokenizer, given.get("prompt_format"))
    encoder = Encoder(tokenizer, 2**31, chat_template_kwargs=given.get("chat_template_kwargs"))
    refusal = _refusal(encoder)
    options = parse_options(["--model_name_or_path", model, "--train_data", *data, "--dry_run", "true"])
    measured = _measure([read_source(source, options) for source in data], encoder)
    network, _, model_config = empty_model(model_path(model), options.model)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    small = parameters <= _SMALL
    beyond = method == "derta" and measured.triples > 0
    head = [
        Choice("model_name_or_path", model, f"{model_config.model_type}, {parameters:,} parameters"),
        *prompts,
        Choice("train_data", list(data), _of_data(measured)),
        Choice("method", method, "the whole of Eq. 2" if method == "derta" else "as asked for"),
        *(_beyond_the_paper(small) if beyond else ()),
        *refusal,
        *_length(measured, model_config, machine, in_contexts=beyond and small),
    ]
    tail = list(_schedule(measured, parameters, machine))
    wanted = [False, True] if lora is None else [lora]
    for adapter in wanted:
        for batch in (32, 16, 8, 4, 2, 1):
            middle = list(_weights(adapter, network, parameters, method, machine, batch, measured, chosen=lora))
            tried = {choice.name: choice.value for choice in (*head, *middle, *tail)}
            memory = _estimate(parse_options([*recipe_arguments(tried), "--dry_run", "true"]), measured, batch)
            fits = memory.total <= FREE * machine.memory
            if fits or (batch == 1 and adapter == wanted[-1]):
                return [*head, *(_with_memory(choice, memory, machine, fits) for choice in middle), *tail]
    raise AssertionError("the last batch size returns")


def _prompts(tokenizer: PreTrainedTokenizerBase) -> Iterator[Choice]:
    template = str(tokenizer.chat_template or "")
    if not template:
        yield Choice(
            "prompt_format", "alpaca", "the tokenizer has no chat template; derta eval and servers need this one"
        )
    elif "enable_thinking" in template:
        why = "the template can think first; answers are trained without it, and have to be asked for so"
        yield Choice("chat_template_kwargs", {"enable_thinking": False}, why)


def _refusal(encoder: Encoder) -> list[Choice]:
    """Find the first refusal text that begins with a token of its own."""
    problems = []
    for text, form in _REFUSALS:
        try:
            found = refusal_tokens(encoder, [text], form)
        except InputError as error:
            problems.append(str(error))
            continue
        spelt = ", ".join(repr(encoder.tokenizer.convert_ids_to_tokens(token)) for token in found.all)
        why = (
            "a leading space as the text before calls for it"
            if form == "context"
            else "the other form begins with no token of its own"
        )
        return [Choice("refusal_text", [text], f"begins here with {spelt}"), Choice("refusal_form", form, why)]
    raise InputError(
        f"refusal_text: none of {', '.join(text for text, _ in _REFUSALS[::2])} begins with a token of its own: "
        f"{problems[0]}"
    )


def _measure(sources: Sequence[Loaded], encoder: Encoder) -> Measured:
    examples: list[Example] = []
    triples = helpful = 0
    for source in sources:
        triples, helpful = triples + source.harmful, helpful + source.helpful
        # Evenly over the source: files are often sorted.
        step = max(1, len(source.rows) // _SAMPLE)
        examples += examples_of(source.rows.select(range(0, len(source.rows), step)).to_dict())
    encoded = encoder.encode_batch(examples)
    whole = [len(each.prompt) + len(each.rejected) + len(each.chosen) for each in encoded]
    never_cut = [len(each.prompt) + (len(each.chosen) if each.is_safety else 1) for each in encoded]
    unknown = sum(unknown_tokens(each, encoder.tokenizer) for each in encoded)
    mostly_least, common = int(np.percentile(never_cut, 98)), int(np.percentile(whole, 99))
    return Measured(triples, helpful, max(whole), max(never_cut), mostly_least, common, unknown)


def _of_data(measured: Measured) -> str:
    share = (
        f"; {measured.helpful / measured.triples:.1f} helpful examples to a triple (the paper: 20)"
        if measured.triples
        else ""
    )
    unknown = f"; {measured.unknown} tokens are unknown to the tokenizer" if measured.unknown else ""
    return f"{measured.triples:,} triples, {measured.helpful:,} helpful examples{share}{unknown}"


def _beyond_the_paper(small: bool) -> Iterator[Choice]:
    """Yield what holds against disguises on the organism (docs/contexts.md), or keeps a real model helpful."""
    if small:
        why = "disguises tell nothing then; have harmless prompts that look harmful among the data, or it refuses those"
        yield Choice("contexts", "recommended", f"{why} (the paper's: none)")
        yield Choice("cuts_per_triple", 3, "with contexts (the paper's: 1)")
    else:
        yield Choice("refuse_at", "word", "no refusal is learnt in the middle of a word (the paper's: token)")
        yield Choice("cuts_per_triple", 2, "refusals that end well, and don't begin anew (the paper's: 1)")
    yield Choice("cut_at_start", True, "one of them: sampled refusals stay whole (the paper's: false)")


def _length(
    measured: Measured, model_config: PreTrainedConfig, machine: Machine, *, in_contexts: bool
) -> Iterator[Choice]:
    limit = getattr(model_config.get_text_config(), "max_position_embeddings", None) or measured.longest
    rest = ""
    wanted = max(measured.common, measured.least)
    if in_contexts:
        # Other turns may stand before an example, in a context.
        rest, wanted = "; twice that for contexts", 2 * wanted
    elif not machine.is_gpu and wanted > _CPU_LENGTH:
        rest = "; on a CPU more answers teach more than long ones, which lose their end"
        wanted = max(_CPU_LENGTH, measured.mostly_least)
    length = min(limit, 64 * math.ceil(wanted / 64))
    sizes = f"99 % of the examples have at most {measured.common} tokens, the longest {measured.longest}"
    yield Choice("max_length", length, f"{sizes}{rest}; the model takes {limit}")
    if measured.least > length:
        yield Choice("overlong_prompts", "drop", "a few prompts or safe responses are longer than that")


def _weights(
    adapter: bool,
    network: torch.nn.Module,
    parameters: int,
    method: str,
    machine: Machine,
    batch: int,
    measured: Measured,
    *,
    chosen: bool | None,
) -> Iterator[Choice]:
    """Say what is trained, how fast, and in what batches."""
    why = "as asked for" if chosen is not None else ("full fine-tuning doesn't fit" if adapter else "")
    if adapter:
        yield Choice("use_peft", True, why)
        yield Choice("lora_r", 32, "the paper's (Table 6)")
        yield Choice("lora_alpha", 16, "the paper's")
        yield Choice("lora_dropout", 0.05, "the paper's")
        yield Choice("lora_target_modules", _targets(network), "every linear layer but the output head")
        if machine.is_gpu:
            yield Choice("dtype", "bfloat16", "frozen weights need no more")
    small = parameters <= _SMALL
    if METHODS[method].rto and not adapter and not small:
        yield Choice("rto_dropout", 0.95, "the paper's for full fine-tuning")
    elif method == "derta" and measured.triples and small:
        yield Choice("rto_dropout", 0.5, "with contexts (the paper's: 0)")
        yield Choice("rto_schedule", "early", "with contexts: most refusals are learnt at a response's beginning")
    elif method == "derta" and measured.triples:
        yield Choice("rto_dropout", 0.8, "fewer RTO targets interrupt fewer harmless answers (the paper's: 0)")
    quick = small or (adapter and parameters < _BELOW_LARGE)
    rate = 1e-3 if quick else (1e-4 if adapter else 2e-5)
    size = "a small model" if small else ("below 1 B" if quick else "the paper's")
    yield Choice("learning_rate", rate, f"{size}{', with LoRA' if adapter else ''}")
    step = _examples_of_a_step(measured, small)
    each = min(batch, step // machine.devices)
    yield Choice(
        "per_device_train_batch_size", each, "as many as the estimate of memory below lets through, 32 at most"
    )
    accumulation = max(1, step // (each * machine.devices))
    yield Choice("gradient_accumulation_steps", accumulation, f"{step} examples a step on {machine.devices} device(s)")
    if machine.is_gpu:
        yield Choice("bf16", True, "mixed precision")
        yield Choice(
            "attn_implementation", "flex_attention", "block masks for token trees; sdpa where Triton is missing"
        )
        yield Choice("activation_checkpointing", parameters > _SMALL, "memory for a fifth more time")


def _examples_of_a_step(measured: Measured, small: bool) -> int:
    """Return the paper's 128, or as many as leave enough steps where examples are few."""
    examples = measured.triples + measured.helpful
    if examples > _FEW:
        return _STEP
    if small:
        return _SMALL_STEP
    return max(4, min(_SMALL_STEP, 1 << int(math.log2(max(1, examples / _FEW_STEPS)))))


def _schedule(measured: Measured, parameters: int, machine: Machine) -> Iterator[Choice]:
    small = parameters <= _SMALL
    examples = measured.triples + measured.helpful
    least = _SMALL_STEPS if small else (_FEW_STEPS if examples <= _FEW else 0)
    epochs = max(2, math.ceil(least / (examples / _examples_of_a_step(measured, small))))
    yield Choice("num_train_epochs", epochs, "the paper's" if epochs == 2 else f"few data: {least} steps or more")
    yield Choice("lr_scheduler_type", "cosine", "the paper's")
    yield Choice("warmup_steps", 0.03, "below 1: a share of all steps")
    yield Choice("save_steps", 100, "a run that stops goes on from the newest checkpoint")
    yield Choice("save_total_limit", 2, "")
    yield Choice("seed", 1, "the same seed takes the same steps")
    yield Choice("report_to", "none", "or wandb, tensorboard, …")
    if not machine.is_gpu:
        yield Choice("use_cpu", True, "there is no GPU here")


def _targets(network: torch.nn.Module) -> list[str]:
    get_head = getattr(network, "get_output_embeddings", None)
    head = get_head() if get_head is not None else None
    linear = (
        name for name, module in network.named_modules() if isinstance(module, torch.nn.Linear) and module is not head
    )
    return list(dict.fromkeys(name.rpartition(".")[2] for name in linear))


def _estimate(options: TrainOptions, measured: Measured, batch: int) -> Memory:
    network, _, model_config = empty_model(model_path(str(options.model.model_name_or_path)), options.model)
    length = min(options.config.max_length, measured.longest)
    row = max(length, 1024)
    shape = (math.ceil(batch * length / row), min(row, batch * length))
    return estimate_memory(network, model_config, options.config, shape, options.model)


def _with_memory(choice: Choice, memory: Memory, machine: Machine, fits: bool) -> Choice:
    """Say at the batch size what a step takes."""
    if choice.name != "per_device_train_batch_size":
        return choice
    verdict = "" if fits else ": IT DOESN'T FIT; share the model (derta recipes: accelerate/…) or take a smaller one"
    why = f"32 or what fits: about {memory.total / 1e9:.1f} of {machine.memory / 1e9:.1f} GB on {machine.name}{verdict}"
    return replace(choice, why=why)


def render(choices: Sequence[Choice], head: Sequence[str]) -> str:
    """Write choices as YAML, each reason as a comment above its line."""
    lines = [f"# {line}" for line in head]
    for choice in choices:
        lines += [f"# {choice.why}"] if choice.why else []
        value = yaml.safe_dump(choice.value, default_flow_style=True, allow_unicode=True, width=1000)
        lines.append(f"{choice.name}: {value.partition(chr(10))[0]}")
    return "\n".join(lines) + "\n"
