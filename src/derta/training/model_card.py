"""The model card: what was trained, on what, with the run's own numbers."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from huggingface_hub import ModelCard, try_to_load_from_cache
from jinja2 import Template
from transformers import TrainerState

from derta.names import model_path
from derta.run_identity import template_options
from derta.training.config import DeRTaConfig
from derta.version import __version__

_CARD = Template(
    """\
---
{{ metadata }}---

# {{ name }}

{% if base -%}
[{{ base }}]({{ base_link }}), tuned{% else -%}
Tuned{% endif %} with method `{{ method }}` of derta {{ version }}: {{ about }}

{% if not evaluated -%}
The numbers below are losses of the training run. They do not measure safety: evaluate the model under attack before
relying on it.
{%- endif %}

## Training

{% if sources -%}
| data | helpful examples | with a harmful response | digest |
|---|---|---|---|
{% for source in sources -%}
| {{ source | join(' | ') }} |
{% endfor %}
{% endif -%}
{{ examples }} examples, {{ steps }} optimizer steps of {{ batch }} examples{{ seconds }}.

| setting | value |
|---|---|
{% for key, value in settings.items() -%}
| {{ key }} | `{{ value }}` |
{% endfor %}
{% if not logs -%}
{% elif terms -%}
| step | loss | helpful | safe | RTO | refusal at RTO | refusal at helpful |
|---|---|---|---|---|---|---|
{% for log in logs -%}
| {{ log | join(' | ') }} |
{% endfor %}
Losses are means per target token. "Refusal at" is the probability of the refusal token: at RTO positions it should be
high, at helpful positions (the false alarm) low.
{% else -%}
| step | loss |
|---|---|
{% for log in logs -%}
| {{ log[:2] | join(' | ') }} |
{% endfor %}
{%- endif %}
## Citation

```bibtex
@inproceedings{yuan2025refuse,
    title     = {Refuse Whenever You Feel Unsafe: Improving Safety in {LLM}s via Decoupled Refusal Training},
    author    = {Yuan, Youliang and Jiao, Wenxiang and Wang, Wenxuan and Huang, Jen-tse and Xu, Jiahao and Liang, Tian
                 and He, Pinjia and Tu, Zhaopeng},
    booktitle = {Proceedings of the 63rd Annual Meeting of the Association for Computational Linguistics},
    year      = {2025},
    url       = {https://aclanthology.org/2025.acl-long.158}
}
```
"""
)

_MERGED = Template(
    """\
---
{{ metadata }}---

# {{ name }}

The LoRA adapter `{{ adapter }}`{% if method %}, tuned with method `{{ method }}` of derta,{% endif %} merged into \
{% if base %}[{{ base }}](https://huggingface.co/{{ base }}){% else %}its base model{% endif %}.

## Prompts

{% if options -%}
Training rendered prompts with the chat template that lies here and these options. `derta eval` and others that read
`derta.json` use them by themselves; a server is told with every request (`derta eval -M chat_template_kwargs=…`):

```json
{{ options }}
```
{%- elif method -%}
Training rendered prompts with the chat template that lies here, without options.
{%- else -%}
The adapter doesn't say how its prompts were rendered in training.
{%- endif %}
{% if training %}
{{ training }}{% endif %}"""
)
_TRAINING = "## Training\n"

_SETTINGS = (
    "contexts",
    "cuts_per_triple",
    "cut_policy",
    "cut_at_start",
    "rto_weight",
    "rto_dropout",
    "rto_schedule",
    "rto_on_end",
    "refuse_at",
    "refusal_text",
    "refusal_form",
    "loss_normalization",
    "prompt_format",
    "chat_template_kwargs",
    "max_length",
    "learning_rate",
    "num_train_epochs",
    "max_steps",
    "seed",
)
_COLUMNS = ("loss", "loss_helpful", "loss_safe", "loss_rto", "refusal_at_rto", "refusal_at_helpful")


def settings_of(args: DeRTaConfig, names: Sequence[str] = _SETTINGS) -> dict[str, Any]:
    """Return the settings of a configuration that a card shows, by name."""
    return {name: getattr(args, name) for name in names}


class DataSource(NamedTuple):
    """What a run was trained on: a source's name, its helpful examples and its others, and a hash of all of them."""

    name: str
    helpful: int
    harmful: int
    digest: str


def write_model_card(
    path: Path,
    *,
    args: DeRTaConfig,
    state: TrainerState,
    base: str,
    examples: int,
    method: str,
    about: str,
    settings: Mapping[str, Any],
    sources: Sequence[DataSource] = (),
    is_adapter: bool = False,
    name: str | None = None,
    datasets: Sequence[str] | None = None,
    tags: Sequence[str] | None = None,
) -> None:
    """Write the card of a run to `path`.

    Args:
        path: Names the file to write.
        args: Is the configuration of the run.
        state: Holds the trainer's log, which the numbers come from.
        base: Names the model that was tuned.
        examples: Counts the training examples.
        method: Names the method.
        about: Says in a sentence what the method does.
        settings: Lists what the run was set to.
        sources: Names the data.
        is_adapter: Whether the run trained an adapter.
        name: Title of the card; defaults to the name of the run's directory.
        datasets: Names of data sets, for the metadata.
        tags: More tags, for the metadata.
    """
    metadata = _metadata(base, _tags(method) + list(tags or ()), is_adapter)
    if datasets:
        metadata["datasets"] = list(datasets)
    base = metadata.get("base_model", "")
    finished = [log for log in state.log_history if "train_runtime" in log]
    card = _CARD.render(
        metadata=yaml.safe_dump(metadata, sort_keys=False),
        name=name or Path(str(args.output_dir)).name,
        base=base,
        base_link=f"https://huggingface.co/{base}",
        method=method,
        about=about,
        version=__version__,
        examples=examples,
        sources=sources,
        steps=state.global_step,
        batch=args.train_batch_size * args.gradient_accumulation_steps * args.world_size,
        seconds=f", {finished[-1]['train_runtime']:.0f} seconds" if finished else "",
        settings=settings,
        terms=any("loss_helpful" in log for log in state.log_history),
        logs=[
            [log["step"], *(f"{log[name]:.3f}" if name in log else "—" for name in _COLUMNS)]
            for log in _spread(state.log_history)
        ],
    )
    path.write_text(card, encoding="utf-8")


def write_merged_card(path: Path, *, adapter: Path, base: str, identity: Mapping[str, Any]) -> None:
    """Write the card of a merged model to `path`: its parts, how prompts were rendered, and the run's own numbers.

    Args:
        path: Names the file to write.
        adapter: Holds the adapter and, if derta trained it, the card of its run.
        base: Names the base model.
        identity: Says whose run the adapter is; empty if nothing does.
    """
    method = identity.get("method")
    metadata = _metadata(base, _tags(method) if method else [])
    base = metadata.get("base_model", "")
    options = template_options(identity)
    of_run = adapter / "README.md"
    text = of_run.read_text("utf-8") if method and of_run.is_file() else ""
    card = _MERGED.render(
        metadata=yaml.safe_dump(metadata, sort_keys=False),
        name=path.parent.name,
        adapter=adapter.name,
        base=base,
        method=method,
        options=options and json.dumps(options),
        training="".join(text.partition(_TRAINING)[1:]),
    )
    path.write_text(card.rstrip() + "\n", encoding="utf-8")


def _metadata(base: str, tags: Sequence[str], is_adapter: bool = False) -> dict[str, Any]:
    """Return what the hub reads of a card: the library, the base model and its licence, which goes along."""
    metadata: dict[str, Any] = {"library_name": "peft" if is_adapter else "transformers"}
    if tags:
        metadata["tags"] = list(dict.fromkeys(tags))
    place = Path(model_path(base)) if base else None
    card: Any = place / "README.md" if place and place.exists() else None
    if base and card is None:
        metadata |= {"base_model": base, "base_model_relation": "adapter" if is_adapter else "finetune"}
        card = try_to_load_from_cache(base, "README.md")
    # Where a model lies on this machine means nothing to a reader, its licence does.
    if isinstance(card, str | Path) and Path(card).is_file():
        licence = ModelCard.load(card, ignore_metadata_errors=True).data.get("license")
        metadata |= {"license": licence} if licence else {}
    return metadata


def _tags(method: str) -> list[str]:
    return list(dict.fromkeys(("derta", "safety", method)))


def _spread(history: list[dict[str, Any]], rows: int = 10) -> list[dict[str, Any]]:
    """At most `rows` training logs, evenly spread, the last among them."""
    logs = [log for log in history if "loss" in log]
    if len(logs) <= rows:
        return logs
    return [logs[round(i * (len(logs) - 1) / (rows - 1))] for i in range(rows)]
