"""`derta merge`: one set of weights from a base model and its LoRA adapter."""

from pathlib import Path

from peft import AutoPeftModelForCausalLM, PeftConfig
from transformers import AutoTokenizer

from derta.errors import InputError
from derta.files import write_json
from derta.training.run_directory import IDENTITY, read_identity


def merge_adapter(adapter: Path, out: Path) -> None:
    """Merge the adapter into its base model and save the result with its tokenizer.

    Raises:
        InputError: `adapter` holds no adapter, its base can't be loaded, or `out` is not empty.
    """
    if not (adapter / "adapter_config.json").is_file():
        raise InputError(f"--adapter: {adapter} holds no adapter (no adapter_config.json)")
    if out.exists() and any(out.iterdir()):
        raise InputError(f"--out: {out} is not empty; give another directory")
    base = PeftConfig.from_pretrained(adapter).base_model_name_or_path
    try:
        model = AutoPeftModelForCausalLM.from_pretrained(adapter)
    except (OSError, ValueError) as error:
        raise InputError(f"--adapter: can't load base model {base!r}: {str(error).splitlines()[0]}") from error
    model.merge_and_unload().save_pretrained(out)
    AutoTokenizer.from_pretrained(adapter).save_pretrained(out)
    identity = read_identity(adapter)
    if identity is not None:
        write_json(out / IDENTITY, identity)
    print(f"merged {adapter} into {base}: {out}")
