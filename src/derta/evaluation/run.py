"""Evaluate a model: attack, generate, judge, count."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from derta.data.behaviours import Behaviour
from derta.errors import InputError
from derta.evaluation.attacks import ATTACKS, ENGLISH, Attempt, Setting, attack_names, organism_phrases
from derta.evaluation.behaviours import load_behaviours
from derta.evaluation.judges import Judge, Verdict, judge_named
from derta.evaluation.metrics import Row, score
from derta.evaluation.samples import Sample
from derta.evaluation.store import RESULTS, Store, fingerprint, save_results
from derta.evaluation.table import results_table
from derta.inference import ChatRequest, Generation, first_tokens, load_model, stream
from derta.names import ORGANISM
from derta.threads import threads_for

MAX_NEW_TOKENS = 512
ORGANISM_NEW_TOKENS = 96
"""More than twice the longest answer of the organism's world."""
SMALL = 50_000_000
"""Parameters below which a model is run in large batches."""


def evaluate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    behaviours: Sequence[Behaviour],
    attacks: Sequence[str],
    judge: Judge,
    *,
    judge_name: str,
    name: str,
    method: str | None = None,
    seed: int | None = None,
    setting: Setting | None = None,
    max_new_tokens: int = MAX_NEW_TOKENS,
    batch_size: int = 32,
    chat_template_kwargs: dict[str, Any] | None = None,
    store: Store | None = None,
    on_sample: Callable[[int, int], None] | None = None,
) -> list[Row]:
    """Attack a model with behaviours and return the rows of every metric.

    Harmful behaviours are asked through every attack, the others directly. Generation is greedy.

    Args:
        judge: decides on (behaviour, whole response, prefilled part). Where it fails, the sample is unscored.
        judge_name, name, method, seed: written into the rows.
        setting: the attacks' words and depths, defaults to English.
        chat_template_kwargs: what the model's prompts were rendered with in training.
        store: keeps samples on disk; those it holds already aren't taken again.
        on_sample: called with (samples done, samples in all).
    """
    setting = setting or Setting(ENGLISH, lambda text, count: first_tokens(tokenizer, text, count))
    plan = _plan(behaviours, attacks, setting)
    samples = dict(store.samples) if store else {}
    for step in plan:
        step.check_held(samples.get(step.key))
    todo = [step for step in plan if step.key not in samples]
    report = on_sample or (lambda done, total: None)
    done = len(plan) - len(todo)
    report(done, len(plan))
    requests = [step.attempt.request for step in todo]
    for index, generation in stream(model, tokenizer, requests, max_new_tokens, batch_size, chat_template_kwargs):
        sample = todo[index].sample(generation, judge, judge_name)
        samples[sample.key] = sample
        if store:
            store.add([sample])
        done += 1
        report(done, len(plan))
    return score([samples[step.key] for step in plan], model=name, method=method, seed=seed, judge=judge_name)


@dataclass(frozen=True)
class _Step:
    """One attempt at one behaviour."""

    behaviour: Behaviour
    attack: str
    attempt: Attempt

    @property
    def key(self) -> tuple[str, str]:
        """The key of the sample it gives."""
        return self.behaviour.id, self.attempt.variant

    @property
    def given(self) -> tuple[str | None, str]:
        """The raw text and the prefix that the model gets, either of them void."""
        request = self.attempt.request
        return (None, request.prefix) if isinstance(request, ChatRequest) else (request.text, "")

    def check_held(self, sample: Sample | None) -> None:
        """Stop at a sample on disk that isn't of the very request it would stand for."""
        if sample and (sample.prompt, sample.raw, sample.prefix) != (self.behaviour.prompt, *self.given):
            raise InputError(
                f"--out: holds a response to another prompt of the id {self.behaviour.id!r}; choose another directory"
            )

    def sample(self, generation: Generation, judge: Judge, judge_name: str) -> Sample:
        """Judge what the model wrote."""
        try:
            verdict = judge(self.behaviour, generation.response, generation.prefix)
        # Whatever goes wrong in a judge: no verdict is not a safe verdict, and one sample must not end the run.
        except Exception as error:
            verdict = Verdict("unscored", reason=f"{type(error).__name__}: {error}")
        raw, prefix = self.given
        return Sample(
            id=self.behaviour.id,
            kind=self.behaviour.kind,
            attack=self.attack,
            variant=self.attempt.variant,
            prompt=self.behaviour.prompt,
            raw=raw,
            prefix=prefix,
            continuation=generation.continuation,
            tokens=generation.tokens,
            finished=generation.finished,
            judge=judge_name,
            verdict=verdict,
        )


def _plan(behaviours: Sequence[Behaviour], attacks: Sequence[str], setting: Setting) -> list[_Step]:
    """Harmful behaviours meet every attack, the others are asked directly."""
    return [
        _Step(behaviour, attack, attempt)
        for behaviour in behaviours
        for attack in (attacks if behaviour.kind == "harmful" else ("direct",))
        for attempt in ATTACKS[attack](behaviour, setting)
    ]


def evaluate_directory(
    model: str,
    *,
    out: Path,
    behaviours: str = ORGANISM,
    attacks: Sequence[str],
    judge: str = ORGANISM,
    limit: int | None = None,
) -> list[Row]:
    """Load a model, evaluate it into the directory `out` (or finish what is there), and return the rows.

    Raises:
        InputError: the model, the behaviours or the directory are wrong.
    """
    found = load_behaviours(behaviours, limit)
    loaded, tokenizer = load_model(model)
    of_organism = behaviours == ORGANISM
    max_new_tokens = ORGANISM_NEW_TOKENS if of_organism else MAX_NEW_TOKENS
    settings = {
        "model": model,
        "fingerprint": fingerprint(loaded),
        "behaviours": behaviours,
        "judge": judge,
        "max_new_tokens": max_new_tokens,
        "dtype": str(loaded.dtype).removeprefix("torch."),
    }
    phrases = organism_phrases() if of_organism else ENGLISH
    tuned = _tuning(model)
    with Store(out, settings) as store, threads_for(loaded), _progress() as progress:
        task = progress.add_task(f"evaluate {tuned.get('method') or Path(model).name}", total=None)
        rows = evaluate(
            loaded,
            tokenizer,
            found,
            attacks,
            judge_named(judge),
            judge_name=judge,
            name=model,
            method=tuned.get("method"),
            seed=tuned.get("seed"),
            setting=Setting(phrases, lambda text, count: first_tokens(tokenizer, text, count)),
            max_new_tokens=max_new_tokens,
            batch_size=_batch_size(loaded),
            chat_template_kwargs=tuned.get("settings", {}).get("chat_template_kwargs"),
            store=store,
            on_sample=lambda done, total: progress.update(task, completed=done, total=total),
        )
    save_results(out / RESULTS, rows, torch=torch.__version__, device=str(loaded.device))
    return rows


def eval_command(model: str, *, behaviours: str, attacks: str, out: Path, judge: str | None, limit: int | None) -> int:
    """Run `derta eval`: evaluate, write `results.json` and `responses.jsonl`, print the table."""
    names = attack_names(attacks)
    # What is wrong with a file is worth more to its author than that it has no judge.
    load_behaviours(behaviours, limit)
    judge = _judge_for(behaviours, judge)
    rows = evaluate_directory(model, out=out, behaviours=behaviours, attacks=names, judge=judge, limit=limit)
    console = Console()
    console.print(results_table(rows))
    console.print(f"wrote {out / RESULTS}", markup=False, highlight=False, soft_wrap=True)
    return 0


def _judge_for(behaviours: str, judge: str | None) -> str:
    if judge is not None:
        judge_named(judge)
    if behaviours == ORGANISM:
        return judge or ORGANISM
    if judge is None:
        raise InputError("--judge: name one: behaviours from a file have no judge of their own")
    raise InputError(f"--judge: {judge!r} knows only the organism's own behaviours; there is no judge for a file yet")


def _tuning(model: str) -> dict[str, Any]:
    """Read how a model was tuned from the `derta.json` that training leaves beside the weights, if there is one."""
    path = Path(model) / "derta.json"
    if not path.is_file():
        return {}
    try:
        tuned = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not JSON: {error}") from error
    return tuned if isinstance(tuned, dict) else {}


def _batch_size(model: PreTrainedModel) -> int:
    """A small model spends its time on the steps, not on the rows; a large one needs its memory."""
    return 128 if model.num_parameters() < SMALL else 16


def _progress() -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=Console(stderr=True))
