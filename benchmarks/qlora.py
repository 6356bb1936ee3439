"""QLoRA on a GPU through the command line: two steps in 4 bit, merge, load again.

    python benchmarks/qlora.py --out qlora.json

The model has random weights in the shape of an 8 B Llama; its figures say that it works, what it takes and how far the
merged model is from the 4-bit one with its adapter. `--rehearse` does the same with LoRA on a small model on a CPU.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from measuring import environment
from peft import AutoPeftModelForCausalLM
from synthetic import examples, word_tokenizer
from train_throughput import SHAPES
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig


def make_model(folder: Path, layers: int, rehearse: bool, device: str) -> None:
    """Save a random model and its tokenizer."""
    shape = SHAPES["8b-lora"].small() if rehearse else SHAPES["8b-lora"]
    layout = shape.config if rehearse else {**shape.config, "num_hidden_layers": layers}
    config = LlamaConfig(**layout, max_position_embeddings=1024, bos_token_id=0, eos_token_id=1, pad_token_id=2)
    torch.manual_seed(0)
    with torch.device(device):
        AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    word_tokenizer(shape.config["vocab_size"]).save_pretrained(folder)


def derta(*arguments: str) -> float:
    """Run a command of derta and return its seconds."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "derta.cli", *arguments], check=True)
    return time.perf_counter() - began


@torch.inference_mode()
def logits_of(model: torch.nn.Module) -> torch.Tensor:
    """Return the logits of one sequence (tokens x vocabulary)."""
    ids = torch.arange(10, 74, device=next(model.parameters()).device)[None]
    logits: torch.Tensor = model(input_ids=ids).logits[0].float().cpu()
    return logits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=32, help="of the 8 B shape")
    parser.add_argument("--rehearse", action="store_true", help="LoRA on a small model on a CPU")
    parser.add_argument("--out", type=Path, help="raw JSON")
    options = parser.parse_args()
    device = "cpu" if options.rehearse else "cuda"
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        make_model(folder / "base", options.layers, options.rehearse, device)
        torch.cuda.empty_cache()
        rows = examples(32, 32, 2000)
        lines = "".join(json.dumps({k: v for k, v in row.items() if v is not None}) + "\n" for row in rows)
        (folder / "data.jsonl").write_text(lines, encoding="utf-8")
        arguments = [f"--model_name_or_path={folder / 'base'}", f"--train_data={folder / 'data.jsonl'}"]
        arguments += ["--use_peft=true", "--lora_r=16", "--max_steps=2", "--per_device_train_batch_size=8"]
        arguments += ["--activation_checkpointing=true", "--report_to=none"]
        on_gpu = ["--load_in_4bit=true", "--bf16=true", "--attn_implementation=flex_attention"]
        arguments += ["--use_cpu=true"] if options.rehearse else on_gpu
        seconds = {"train": derta("train", *arguments, f"--output_dir={folder / 'adapter'}")}
        seconds["merge"] = derta("merge", "--adapter", str(folder / "adapter"), "--out", str(folder / "merged"))

        quantized = {} if options.rehearse else {"quantization_config": BitsAndBytesConfig(load_in_4bit=True)}
        how = {"dtype": torch.bfloat16, "device_map": device}
        trained = logits_of(AutoPeftModelForCausalLM.from_pretrained(folder / "adapter", **how, **quantized))
        torch.cuda.empty_cache()
        merged = logits_of(AutoModelForCausalLM.from_pretrained(folder / "merged", **how))
        log = json.loads((folder / "adapter" / "trainer_state.json").read_text())["log_history"]
    similarity = torch.nn.functional.cosine_similarity(trained, merged, dim=-1).mean().item()
    result = {
        "environment": environment(device),
        "layers": options.layers,
        "seconds": seconds,
        "finite": bool(merged.isfinite().all()),
        "similarity_of_logits": similarity,
        "log": log,
    }
    print(json.dumps({key: result[key] for key in ("seconds", "finite", "similarity_of_logits")}))
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
