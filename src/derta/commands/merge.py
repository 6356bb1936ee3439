"""`derta merge`: one set of weights from a base model and its LoRA adapter."""

from pathlib import Path

from derta.errors import InputError
from derta.files import write_json
from derta.inference.loading import adapter_base, load_model
from derta.run_identity import IDENTITY, read_identity


def merge_adapter(adapter: Path, out: Path) -> None:
    """Merge the adapter into its base model and save the result with its tokenizer.

    Raises:
        InputError: `adapter` holds no adapter, its base can't be loaded, or `out` is not empty.
    """
    if not (adapter / "adapter_config.json").is_file():
        raise InputError(f"--adapter: {adapter} holds no adapter (no adapter_config.json)")
    if out.exists() and any(out.iterdir()):
        raise InputError(f"--out: {out} is not empty; give another directory")
    model, tokenizer = load_model(str(adapter), device="cpu", dtype="auto")
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    identity = read_identity(adapter)
    if identity is not None:
        write_json(out / IDENTITY, identity)
    print(f"merged {adapter} into {adapter_base(str(adapter))}: {out}")
