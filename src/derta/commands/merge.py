"""`derta merge`: one set of weights from a base model and its LoRA adapter."""

import json
import shlex
from argparse import ArgumentParser, Namespace
from pathlib import Path

from derta.errors import InputError
from derta.files import MODEL_FILES, file_digests, write_json, written_whole
from derta.run_identity import IDENTITY, read_identity, template_options
from derta.terminal import screen


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what `run` reads."""
    parser.add_argument("--adapter", type=Path, required=True, help="directory with the adapter")
    parser.add_argument("--out", type=Path, required=True, help="directory to write the merged model to")


def run(args: Namespace) -> int:
    """Merge, and say where the model is.

    Raises:
        InputError: see [`merge_adapter`].
    """
    with screen.libraries_aside():
        base = merge_adapter(args.adapter, args.out)
    print(f"merged {args.adapter} into {base}: {args.out}")
    if options := template_options(read_identity(args.out)):
        kwargs = shlex.quote(json.dumps(options))
        print(f"tuned with options of its chat template: vllm serve {args.out} --default-chat-template-kwargs {kwargs}")
    return 0


def merge_adapter(adapter: Path, out: Path) -> str:
    """Merge the adapter into its base model, save the result with its tokenizer and a card, and return the base's name.

    What training recorded of the run goes along, the options of its chat template among it.

    Raises:
        InputError: `adapter` holds no adapter, its base can't be loaded, or `out` is not empty.
    """
    from derta.generation.loading import adapter_base, load_model
    from derta.training.model_card import write_merged_card

    if not (adapter / "adapter_config.json").is_file():
        raise InputError(f"--adapter: {adapter} holds no adapter (no adapter_config.json)")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"--out: {out} is not empty; give another directory")
    identity = read_identity(adapter)
    base = str(adapter_base(str(adapter)))
    model, tokenizer = load_model(str(adapter), device="cpu", dtype="auto")
    with written_whole(out) as draft:
        model.save_pretrained(draft)
        tokenizer.save_pretrained(draft)
        if identity is not None:
            write_json(draft / IDENTITY, {**identity, "files": file_digests(draft, *MODEL_FILES)})
        write_merged_card(draft / "README.md", adapter=adapter, base=base, identity=identity or {})
    return base
