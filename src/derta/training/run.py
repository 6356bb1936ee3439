"""`derta train`: one run from options to a saved model, in a directory that it can go on from."""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import PartialState
from datasets import Dataset
from transformers import PreTrainedTokenizerBase, PrinterCallback, ProgressCallback, TrainerCallback
from trl import get_peft_config, get_quantization_config

from derta.contexts import context_weights
from derta.data.arrow import canonical, examples_of
from derta.data.cached_source import ExamplesDigest, Loaded, load_source
from derta.data.mixing import mix
from derta.errors import InputError, did_you_mean, first_line
from derta.files import cache_directory, file_digest, sole_writer
from derta.generation.loading import load_tokenizer, world_of
from derta.names import ORGANISM, model_path, organism_world
from derta.redaction import redacted
from derta.run_identity import trained_with
from derta.terminal import LOG, screen
from derta.termination import termination
from derta.threads import threads_for
from derta.training.config import DeRTaConfig
from derta.training.display import TrainingDisplay
from derta.training.dry_run import count_steps, examples_per_step, print_plan
from derta.training.harmless_check import tell_harmless_refusals
from derta.training.model_card import DataSource
from derta.training.options import TrainOptions, parse_options
from derta.training.run_directory import RunDirectory, is_disk_full, require_disk_space
from derta.training.run_trainer import RunTrainer, answering_model
from derta.training.trainer import DeRTaTrainer

# These change where and how a run is told about and stored, not what it computes.
_NO_PART_OF_IDENTITY = {
    "output_dir", "run_name", "report_to", "disable_tqdm", "push_to_hub", "dataset_num_proc", "train_data", "eval_data",
    "per_device_train_batch_size", "gradient_accumulation_steps", "model_name_or_path", "method", "seed", "overwrite",
    "include_num_input_tokens_seen", "dataset_cache_dir",
}  # fmt: skip
_NO_PART_OF_IDENTITY_PREFIXES = (
    "logging_",
    "log_",
    "attack",
    "save_",
    "eval_",
    "hub_",
    "dataloader_",
    "per_device_eval",
    "trackio",
)


_TOY = 50_000_000
"""Parameters below which a model (an organism, a test's) isn't asked everyday requests."""

Attacking = Callable[[TrainOptions, PreTrainedTokenizerBase], Callable[[RunTrainer], TrainerCallback]]


@dataclass(frozen=True)
class Training:
    """A way to train that comes from above: methods that are no part of derta's own path.

    Attributes:
        command: Names the command in messages.
        config_class: Is the class of its configuration.
        make: Makes the trainer of a run, from its options, training data and tokenizer.
        show_plan: Prints what a dry run shows, from the same and the model's path.
    """

    command: str
    config_class: type[DeRTaConfig]
    make: Callable[[TrainOptions, Dataset, PreTrainedTokenizerBase], RunTrainer]
    show_plan: Callable[[TrainOptions, Dataset, PreTrainedTokenizerBase, str], None]


def train_command(
    argv: Sequence[str], attack: Attacking | None = None, training: Training | None = None
) -> Path | None:
    """Train, or finish what the output directory holds; returns the directory, or `None` after a dry run.

    Args:
        argv: Holds the options.
        attack: Plans the attacks on the model while it trains, if the options ask for them, and makes the callback of a
            trainer. It comes from above: attacks are no part of training.
        training: Takes the place of `DeRTaTrainer`.

    Raises:
        InputError: An option, the model, the data or the directory is wrong.
    """
    options = parse_options(argv, training.config_class, training.command) if training else parse_options(argv)
    _check_together(options)
    sources = [read_source(source, options) for source in options.data.train_data]
    train_data = mix_sources(sources, options)
    eval_sources = options.data.eval_data
    eval_data = mix([read_source(source, options).rows for source in eval_sources]) if eval_sources else None
    model = model_path(str(options.model.model_name_or_path))
    tokenizer = load_tokenizer(model, options.model.model_revision)
    attacking = attack(options, tokenizer) if attack is not None and options.attack.attack_steps is not None else None
    if options.run.dry_run:
        (training.show_plan if training else print_plan)(options, train_data.rows, tokenizer, model)
        return None
    if "output_dir" not in options.overrides:
        raise InputError("output_dir: name a directory for the run (--output-dir, or in the recipe)")
    run = RunDirectory(Path(str(options.config.output_dir)), _identity(options, train_data.digest))
    run.check(options.run.overwrite)
    if run.finished and not options.run.overwrite:
        screen.say(f"{run.path}: this run is finished (--overwrite starts anew)")
        return run.path
    trainer: RunTrainer
    if training is None:
        trainer = _trainer(options, train_data.rows, eval_data, tokenizer)
    else:
        trainer = training.make(options, train_data.rows, tokenizer)
    if options.config.dataloader_drop_last:
        # Stops where no batch is whole; every trainer has its data by now.
        count_steps(options.config, len(cast(Any, trainer.train_dataset)))
    if isinstance(trainer, DeRTaTrainer):
        run.identity["trained_with"] = trained_with(tokenizer, trainer.refusals.all)
    trainer.run_identity = run.identity
    trainer.data_sources = [
        DataSource(Path(name).name, source.helpful, len(source.rows) - source.helpful, source.digest[:16])
        for name, source in zip(options.data.train_data, sources, strict=True)
    ]
    if attacking is not None:
        trainer.add_callback(attacking(trainer))
    # Only a run that can start claims its directory.
    is_first = trainer.is_world_process_zero()
    with sole_writer(run.path, "output_dir") if is_first else nullcontext():
        if is_first:
            left_out = ("overwrite", "dry_run", "hub_token")
            recipe = redacted({name: value for name, value in options.overrides.items() if name not in left_out})
            run.claim(recipe, options.run.overwrite)
        trainer.accelerator.wait_for_everyone()
        screen.log_to(run.path)
        train_run(trainer, run)
    return run.path


def mix_sources(sources: Sequence[Loaded], options: TrainOptions) -> Loaded:
    """Mix sources by `ratios` and the seed. The digest is that of all of them in order."""
    digest = hashlib.sha256("\n".join(source.digest for source in sources).encode()).hexdigest()
    config, data = options.config, options.data
    seed = config.seed if config.data_seed is None else config.data_seed
    rows = [source.rows for source in sources]
    return Loaded(mix(rows, ratios=data.ratios, seed=seed, max_examples=data.max_examples), digest)


def read_source(source: str, options: TrainOptions) -> Loaded:
    """Read one source in its own order; `organism` is that of the world which the model knows.

    `organism?triples=192` has another size.

    Raises:
        InputError: The source can't be read, or is of another world than the model.
    """
    name, _, query = source.partition("?")
    world = organism_world(name)
    if world is not None:
        from derta.organism import World, training_data

        known = world_of(str(options.model.model_name_or_path))
        if known not in (None, world) and name != ORGANISM:
            raise InputError(f"train_data: {source}: the model knows world {known}; name {ORGANISM}")
        of_model = World(world if known is None else known)
        rows = canonical(training_data(of_model, **_organism_options(query)), source)
        digest = ExamplesDigest()
        for example in examples_of(rows.to_dict()):
            digest.add(example)
        return Loaded(rows, digest.hexdigest())
    cache_dir = cache_directory(options.config.dataset_cache_dir)
    data = options.data
    return load_source(
        source,
        schema=data.schema,
        swap=data.swap,
        bad_rows=data.bad_rows,
        polarity_checked=data.polarity_checked,
        cache_dir=cache_dir,
    )


def _organism_options(query: str) -> dict[str, Any]:
    """Read what follows `organism?`: how many examples of which kind, as `name=value` joined by `&`."""
    known = {"seed": int, "triples": int, "helpful": int, "borderline_share": float}
    found: dict[str, Any] = {}
    for part in query.split("&") if query else ():
        option, _, value = part.partition("=")
        if option in found:
            raise InputError(f"train_data: organism?{query}: {option} is given twice; leave one out")
        if option not in known:
            hint = did_you_mean(option, known)
            raise InputError(f"train_data: organism has no {option!r}{hint}; it has {', '.join(known)}")
        try:
            found[option] = known[option](value)
        except ValueError:
            raise InputError(f"train_data: organism?{part}: {value!r} is not a number") from None
        most = 1 if option == "borderline_share" else 1_000_000
        if not 0 <= found[option] <= most:
            raise InputError(f"train_data: organism?{part}: give a number from 0 to {most:,}")
    return found


def _check_together(options: TrainOptions) -> None:
    """Stop at options that contradict each other before anything is read."""
    model = options.model
    if not model.model_name_or_path:
        raise InputError("model_name_or_path: name a model (--model_name_or_path, or in the recipe)")
    if not options.data.train_data:
        raise InputError("train_data: name files or data sets to train on (--train_data, or in the recipe)")
    if getattr(model, "trust_remote_code", False):  # not every version of TRL has it
        raise InputError("trust_remote_code: code beside a checkpoint is never run; leave it out")
    if options.config.resume_from_checkpoint:
        raise InputError(
            "resume_from_checkpoint: a run goes on from the newest checkpoint of its output_dir by itself; leave it out"
        )
    quantized = model.load_in_4bit or model.load_in_8bit
    if quantized and not model.use_peft:
        raise InputError("load_in_4bit / load_in_8bit: quantised weights can't be trained; add --use_peft (QLoRA)")
    has_gpu = torch.cuda.is_available() and not options.config.use_cpu
    if quantized and not has_gpu and not options.run.dry_run:
        raise InputError("load_in_4bit / load_in_8bit: QLoRA needs a CUDA GPU; leave it out to train LoRA on the CPU")
    of_lora = [name for name in options.overrides if name.startswith("lora_") or name in ("use_dora", "use_rslora")]
    if of_lora and not model.use_peft:
        raise InputError(f"{of_lora[0]}: set without use_peft, so it would do nothing; add --use_peft")
    of_attacks = [name for name in options.overrides if name.startswith("attack") and name != "attack_steps"]
    if of_attacks and options.attack.attack_steps is None:
        raise InputError(f"{of_attacks[0]}: nothing is attacked while training; say how often with attack_steps")
    if (
        options.attack.attack_steps is not None
        and not options.attack.attack_behaviours
        and world_of(model.model_name_or_path) is None
    ):
        raise InputError("attack_behaviours: name a file of harmful prompts to attack the model with while it trains")
    config = options.config
    if config.eval_strategy != "no" and not options.data.eval_data:
        raise InputError("eval_strategy: there is nothing to evaluate; name --eval_data, or set it to no")
    if options.data.eval_data and config.eval_strategy == "no" and not config.eval_on_start:
        raise InputError("eval_data: nothing says when to evaluate; set eval_strategy to steps or epoch")
    if config.dataloader_persistent_workers and not config.dataloader_num_workers:
        raise InputError("dataloader_persistent_workers: there are no workers; set dataloader_num_workers")


def _trainer(
    options: TrainOptions, train_data: Dataset, eval_data: Dataset | None, tokenizer: PreTrainedTokenizerBase
) -> DeRTaTrainer:
    config = options.config
    config.model_init_kwargs = model_kwargs(options)
    name = model_path(str(options.model.model_name_or_path))
    try:
        return DeRTaTrainer(name, config, train_data, eval_data, tokenizer, get_peft_config(options.model))
    except InputError:
        raise
    except (OSError, ImportError, ValueError) as error:
        raise InputError(f"model_name_or_path: can't set up {name!r}: {first_line(error)}") from error


def model_kwargs(options: TrainOptions) -> dict[str, Any]:
    """Return what the options say of how to load the model, for `from_pretrained`."""
    model = options.model
    kwargs = {
        "revision": model.model_revision,
        "dtype": model.dtype,
        "attn_implementation": model.attn_implementation,
        **cast(dict[str, Any], options.config.model_init_kwargs or {}),
    }
    quantization = get_quantization_config(model)
    if quantization is not None:
        kwargs |= {
            "device_map": {"": PartialState().local_process_index},
            "quantization_config": quantization,
        }
    return kwargs


def train_run(trainer: RunTrainer, run: RunDirectory) -> None:
    """Train what a claimed directory holds to its end, from its newest checkpoint if there is one, and save the model.

    Raises:
        InputError: The disk is full, a step is broken, or an optimizer isn't installed.
    """
    trainer.train_stages()
    checkpoint = run.newest_checkpoint() if trainer.is_world_process_zero() else None
    trainer.accelerator.wait_for_everyone()
    if not trainer.is_world_process_zero():
        checkpoint = run.newest_checkpoint()
    require_disk_space(run.path, _saved_bytes(trainer.model))
    if checkpoint is not None and trainer.is_world_process_zero():
        screen.say(f"{run.path}: going on from {checkpoint.name}")
    examples = len(cast(Any, trainer.train_dataset) or ())
    display = TrainingDisplay(f"training {run.identity['method']} on {examples:,} examples")
    for transformers_own in (ProgressCallback, PrinterCallback):
        trainer.remove_callback(transformers_own)
    trainer.add_callback(display)
    try:
        with threads_for(trainer.model), display.shown(), termination.awaited():
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        if trainer.ends_early:
            termination.asked = True  # perhaps in another process
            raise KeyboardInterrupt
        # The hub comes last: what can't be sent there is saved here.
        pushes, trainer.args.push_to_hub = trainer.args.push_to_hub, False
        trainer.save_model()
        trainer.args.push_to_hub = pushes
        trainer.save_state()
        trainer.create_model_card()
    except Exception as error:
        if is_disk_full(error, run.path):
            raise InputError(
                f"output_dir: no disk space left in {run.path}; free some and run the same command again: "
                "it goes on from the newest checkpoint"
            ) from error
        raise
    if trainer.is_world_process_zero():
        run.finish()
        screen.say(f"trained: {display.summary()}")
        screen.say(f"saved the model in {run.path}; libraries' messages are in {run.path / LOG}")
        _tell_harmless_refusals(trainer)
    if pushes:
        _push(trainer, run)


def _tell_harmless_refusals(trainer: RunTrainer) -> None:
    """Ask the tuned model what anybody might, where it is whole in this process and speaks a language."""
    config = trainer.args
    is_toy = sum(parameter.numel() for parameter in trainer.model.parameters()) < _TOY
    if config.world_size > 1 or is_toy or not isinstance(trainer, DeRTaTrainer):
        return
    kwargs = cast("dict[str, Any] | None", config.chat_template_kwargs)
    tokenizer = cast(PreTrainedTokenizerBase, trainer.processing_class)
    tell_harmless_refusals(answering_model(trainer), tokenizer, config.refusal_text[0], kwargs)


def _push(trainer: RunTrainer, run: RunDirectory) -> None:
    """Send the model to the hub.

    Raises:
        InputError: It can't be sent; it is saved all the same.
    """
    try:
        trainer.push_to_hub()
    except Exception as error:  # of the network, the server, its client, a missing permission
        raise InputError(
            f"push_to_hub: the model is saved in {run.path}, and couldn't be sent to the hub: {first_line(error)}; "
            f"send it with hf upload"
        ) from error


def _saved_bytes(model: torch.nn.Module) -> int:
    """Bytes of a checkpoint with AdamW's two moments, and of the model saved at the end."""
    parameters = (
        [p for p in model.parameters() if p.requires_grad]
        if hasattr(model, "peft_config")
        else list(model.parameters())
    )

    def size(parameter: torch.nn.Parameter) -> int:
        values: int = getattr(parameter, "ds_numel", parameter.numel())  # DeepSpeed ZeRO-3 empties what it cuts
        return values * parameter.element_size()

    moments = sum(2 * size(p) for p in model.parameters() if p.requires_grad)
    return 2 * sum(map(size, parameters)) + moments


def _identity(options: TrainOptions, data_digest: str) -> dict[str, Any]:
    config = options.config
    settings = {
        name: value
        for name, value in options.overrides.items()
        if name not in _NO_PART_OF_IDENTITY and not name.startswith(_NO_PART_OF_IDENTITY_PREFIXES)
    }
    # One step is the same however its examples are spread over ranks and accumulation.
    settings["examples_per_step"] = examples_per_step(config)
    weights = context_weights(config.contexts)
    if weights is not None:
        # A named set may hold other weights tomorrow, and a file other texts.
        settings["contexts"] = weights
        for name in ("context_role_plays", "context_small_talk"):
            if settings.get(name):
                settings[name] = file_digest(Path(settings[name]))[:16]
    return {
        "method": config.method,
        "seed": config.seed,
        "base": options.model.model_name_or_path,
        "data": data_digest[:16],
        "settings": redacted(settings),
    }
