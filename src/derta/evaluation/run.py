"""Evaluate a model: attack, generate, judge, count. Inspect runs it, resumes it and keeps the logs."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import torch
from inspect_ai import Task, eval_set
from inspect_ai.log import EvalLog, EvalSample, read_eval_log_samples
from inspect_ai.model import Model
from rich.console import Console

from derta.data.behaviours import Behaviour
from derta.errors import InputError, first_line
from derta.evaluation.attacks import (
    ENGLISH,
    ORGANISM_SEARCH,
    REQUIRES,
    Attempt,
    Search,
    Setting,
    organism_attacker,
    organism_phrases,
)
from derta.evaluation.attacks.base import ask
from derta.evaluation.config import JudgeName, Options
from derta.evaluation.harness.judges import asking, make_judge
from derta.evaluation.harness.models import connect, tuning
from derta.evaluation.harness.provider import MAX_TOKENS, DertaAPI
from derta.evaluation.harness.target import Way, check_ways
from derta.evaluation.harness.tasks import Item, Play, make_task, plan
from derta.evaluation.inputs.behaviours import load_behaviours, load_borderline
from derta.evaluation.inputs.prompts import load_demonstrations, load_prompts, load_templates
from derta.evaluation.inputs.questions import CHECKED, answer_judge, load_questions
from derta.evaluation.judges import Judge, Verdict
from derta.evaluation.judges.pairwise import pairwise
from derta.evaluation.results.metrics import Row, agreement_row, score
from derta.evaluation.results.sample import Sample
from derta.evaluation.results.store import (
    LOGS,
    RESPONSES,
    RESULTS,
    claim,
    fingerprint,
    save_results,
    save_samples,
)
from derta.inference import check_room, first_tokens
from derta.names import ORGANISM
from derta.threads import threads_for

_OF_A_SEARCH = {"weights", "attacker"}
ORGANISM_NEW_TOKENS = 96
"""More than twice the longest answer of the organism's world."""
ORGANISM_SEARCH_LIMIT = 20
Display = Literal["full", "rich", "plain", "none"]
_ANSWERS = "answers"


def evaluate_directory(model: str, *, out: Path, options: Options, display: Display = "none") -> list[Row]:
    """Evaluate a model into the directory `out`, or finish what is there; return the rows.

    Samples that are already in `out` are neither taken nor judged again.

    Args:
        model: see `connect`.
        out: gets `evaluation.json`, `logs/`, `responses.jsonl` and `results.json`.
        options: what to ask.
        display: Inspect's: `full`, `rich`, `plain` or `none`.

    Raises:
        InputError: the model, a file, an option or the directory is wrong.
    """
    options = with_defaults(options)
    # What is wrong with a file is told before a model is loaded.
    behaviours = find_behaviours(options)
    connected = connect(model, options.model_args)
    items, tasks = prepare(connected, options, behaviours)
    claim(out, _settings(model, connected, options), {name: _digest(taken) for name, taken in items.items()})
    with _threads(connected), _status(display, f"evaluating {model}: {sum(map(len, items.values()))} samples"):
        _, logs = eval_set(
            list(tasks.values()),
            log_dir=str(out / LOGS),
            model=connected,
            model_roles={role: connect(name) for role, name in options.model_roles.items()},
            display=display,
            retry_attempts=0,
            retry_immediate=False,
            max_tasks=len(tasks),
            fail_on_error=False,
            # Also the samples since the last write survive a kill.
            log_realtime=True,
            ctl_server=False,
            log_dir_allow_dirty=True,
            score_display=False,
            max_connections=connected.api.max_connections(),
        )
    _check_ended(logs, len(tasks))
    of_task = {log.eval.task: log for log in logs}
    samples = [sample for name, taken in items.items() for sample in _samples(of_task[name], taken)]
    rows = _rows(samples, model, tuning(connected))
    save_samples(out / RESPONSES, samples)
    save_results(out / RESULTS, rows, torch=torch.__version__, device=_device(connected))
    _check_asked(samples)
    return rows


def prepare(
    model: Model, options: Options, behaviours: Sequence[Behaviour]
) -> tuple[dict[str, list[Item]], dict[str, Task]]:
    """Return the samples to take and the Inspect task that takes them, by the task's name.

    Raises:
        InputError: an attack can't be carried out on this model, or a judge is missing.
    """
    judges = {judge.name: make_judge(judge) for judge in options.judges}
    setting = _setting(options, model)
    items = _items(options, behaviours, setting)
    _check(model, items, options)
    play = Play(
        setting,
        judges,
        max_tokens=options.max_new_tokens or MAX_TOKENS,
        temperature=options.temperature,
        epochs=options.epochs,
        helpers={"attacker": organism_attacker(options.seed)} if _scripted(options) else None,
    )
    tasks = {}
    for name, taken in items.items():
        own = replace(play, judges=_answer_judges(name, options)) if name in options.tasks else play
        tasks[name] = make_task(name, taken, own)
    return items, tasks


def with_defaults(options: Options) -> Options:
    """Fill in what depends on whether the organism is evaluated.

    Raises:
        InputError: the organism's judge is asked about another world.
    """
    of_organism = options.behaviours == ORGANISM and not options.prompts
    judge = JudgeName(ORGANISM if of_organism else "refusal")
    if not of_organism and any(each.name == ORGANISM for each in options.judges):
        raise InputError("--judge organism: knows only the organism's own behaviours; use refusal or a model judge")
    search = Search() if not of_organism else ORGANISM_SEARCH
    return replace(
        options,
        judges=options.judges or (judge,),
        search=asdict(search) | dict(options.search),
        search_limit=options.search_limit or (ORGANISM_SEARCH_LIMIT if of_organism else None),
        max_new_tokens=options.max_new_tokens or (ORGANISM_NEW_TOKENS if of_organism else MAX_TOKENS),
    )


def find_behaviours(options: Options) -> list[Behaviour]:
    """Return what is to be asked for, from the organism and from files.

    Raises:
        InputError: a file is wrong.
    """
    found = [] if options.prompts or not options.behaviours else load_behaviours(options.behaviours, options.limit)
    for path in options.borderline:
        found += load_borderline(path, options.limit)
    return found


def _setting(options: Options, model: Model) -> Setting:
    phrases = organism_phrases() if options.behaviours == ORGANISM and not options.prompts else ENGLISH
    more: dict[str, Any] = {"depths": options.depths} if options.depths else {}
    if options.templates:
        more["templates"] = load_templates(Path(options.templates))
    if options.demonstrations:
        more["demonstrations"] = load_demonstrations(Path(options.demonstrations))
    return Setting(phrases, _first_tokens(model), search=Search(**options.search), seed=options.seed, **more)


def _first_tokens(model: Model) -> Callable[[str, int], str]:
    """Cut by the model's own tokens; by words behind an API, whose tokenizer isn't known."""
    api = model.api
    if isinstance(api, DertaAPI):
        return lambda text, count: first_tokens(api.weights.tokenizer, text, count)
    return lambda text, count: " ".join(text.split(" ")[:count])


def _answer_judges(task: str, options: Options) -> dict[str, Judge]:
    if task in CHECKED:
        return {_ANSWERS: answer_judge(task)}
    if "judge" not in options.model_roles:
        raise InputError(f"--task {task}: answers are compared by a model: --model-role judge=PROVIDER/MODEL")
    return {_ANSWERS: pairwise(asking(connect(options.model_roles["judge"])))}


def _items(options: Options, behaviours: Sequence[Behaviour], setting: Setting) -> dict[str, list[Item]]:
    """Return the samples of each task: harmful behaviours meet every attack, the others are asked directly."""
    items: dict[str, list[Item]] = {}
    if options.prompts:
        (attack,) = options.attacks
        # Behaviours in a file of their own are what the judge reads, a row for a row.
        meant = load_behaviours(options.behaviours) if options.behaviours else None
        given = load_prompts(Path(options.prompts), attack, meant)[: options.limit]
        items[attack] = [Item(behaviour, attack, attempt) for behaviour, attempt in given]
    else:
        harmful = [behaviour for behaviour in behaviours if behaviour.kind == "harmful"]
        for attack in options.attacks if harmful else ():
            searches = bool(REQUIRES[attack] & _OF_A_SEARCH)
            items[attack] = plan(attack, harmful[: options.search_limit] if searches else harmful, setting)
    for kind in ("borderline", "helpful"):
        harmless = [behaviour for behaviour in behaviours if behaviour.kind == kind]
        if harmless:
            items[kind] = plan("direct", harmless, setting)
    for name, path in options.tasks.items():
        questions = load_questions(name, Path(path))[: options.limit]
        items[name] = [Item(each, name, Attempt(name, ask(each.prompt))) for each in questions]
    if not any(items.values()):
        raise InputError("--behaviours: nothing to ask: no behaviour and no task")
    return items


def _check(model: Model, items: Mapping[str, Sequence[Item]], options: Options) -> None:
    """Stop before anything is generated if something can't be asked."""
    needed: dict[Way, str] = {}
    for name, taken in items.items():
        requires = REQUIRES.get(name, frozenset())
        if all(item.attempt for item in taken):
            requires -= _OF_A_SEARCH  # its result is there, in a file
        for requirement in sorted(requires):
            if requirement == "attacker":
                if "attacker" not in options.model_roles and not _scripted(options):
                    raise InputError(
                        f"--attacks {name}: needs an attacking model: --model-role attacker=PROVIDER/MODEL"
                    )
            else:
                needed.setdefault(requirement, name)
    check_ways(model, needed)
    api = model.api
    if isinstance(api, DertaAPI):
        requests = [item.attempt.request for taken in items.values() for item in taken if item.attempt]
        weights = api.weights
        most = options.max_new_tokens or MAX_TOKENS
        check_room(weights.model, weights.tokenizer, requests, most, weights.chat_template_kwargs)


def _scripted(options: Options) -> bool:
    return options.behaviours == ORGANISM and "attacker" not in options.model_roles


def _settings(model: str, connected: Model, options: Options) -> dict[str, Any]:
    """Return what makes samples comparable; attacks and tasks may be added later."""
    kept = asdict(options)
    for growing in ("attacks", "tasks"):
        kept.pop(growing)
    api = connected.api
    which = fingerprint(api.weights.model) if isinstance(api, DertaAPI) else str(connected)
    precision = str(api.weights.model.dtype).removeprefix("torch.") if isinstance(api, DertaAPI) else None
    document = {"model": model, "fingerprint": which, "dtype": precision, **kept}
    return dict(json.loads(json.dumps(document)))


def _digest(items: Sequence[Item]) -> str:
    """Return a short hash of what is asked: samples of another question mustn't stand for these."""
    asked = [(item.key, asdict(item.behaviour), item.attempt and repr(item.attempt.request)) for item in items]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]


def _check_ended(logs: Sequence[EvalLog], wanted: int) -> None:
    """Stop if Inspect was stopped: what it has taken is in its logs."""
    for log in logs:
        if log.status == "error":
            reason = _told(log.error.message) if log.error else "no reason given"
            raise InputError(f"{log.eval.task}: Inspect ended with: {reason}; run the same command again to go on")
    # It swallows an interrupt, and returns no logs then.
    if len(logs) < wanted or any(log.status != "success" for log in logs):
        raise KeyboardInterrupt


def _check_asked(samples: Sequence[Sample]) -> None:
    """Stop if an attack could not be carried out for want of something that the user has to give."""
    for sample in samples:
        kind, _, reason = sample.verdict.reason.partition(": ")
        if sample.verdict.label == "unscored" and kind == InputError.__name__:
            raise InputError(f"{sample.attack}: {reason}")


def _samples(log: EvalLog, items: Sequence[Item]) -> Iterator[Sample]:
    """Read the judged samples of a task's log, one for each sample, epoch and judge, in the order of `items`."""
    places = {item.key: place for place, item in enumerate(items)}
    judges = [scorer.name for scorer in log.eval.scorers or []]
    read = read_eval_log_samples(log.location, all_samples_required=False, exclude_fields={"events", "store"})
    taken = [sample for sample in read if str(sample.id) in places]
    for sample in sorted(taken, key=lambda sample: (places[str(sample.id)], sample.epoch)):
        for judge in judges:
            yield _sample(sample, items[places[str(sample.id)]], judge)


def _sample(taken: EvalSample, item: Item, judge: str) -> Sample:
    said = taken.metadata
    scored = (taken.scores or {}).get(judge)
    if scored is not None and scored.metadata:
        verdict = Verdict(**{key: scored.metadata[key] for key in Verdict.__dataclass_fields__})
    else:
        # Inspect writes an error as its repr.
        reason = _told(taken.error.message) if taken.error else "no verdict in the log"
        verdict = Verdict("unscored", reason=reason)
    response, prefix = said.get("response", ""), said.get("prefix", "")
    return Sample(
        id=item.behaviour.id,
        kind=item.behaviour.kind,
        attack=item.attack,
        variant=item.variant,
        prompt=item.behaviour.prompt,
        messages=said.get("messages"),
        raw=said.get("raw"),
        prefix=prefix,
        continuation=response[len(prefix) :],
        tokens=said.get("tokens", 0),
        finished=said.get("finished", False),
        queries=said.get("queries", 0),
        epoch=taken.epoch,
        judge=judge,
        verdict=verdict,
    )


def _told(error: str) -> str:
    """Turn the repr of an exception into `Name: message`."""
    match = re.fullmatch(r"(\w+)\((['\"])(.*)\2,?\)", error, re.DOTALL)
    return f"{match[1]}: {match[3]}" if match else first_line(Exception(error))


def _rows(samples: Sequence[Sample], model: str, tuned: Mapping[str, Any]) -> list[Row]:
    """Count each judge's verdicts, and how far judges agree where there are several."""
    rows: list[Row] = []
    method, seed = tuned.get("method"), tuned.get("seed")
    judges = list(dict.fromkeys(sample.judge for sample in samples))
    for judge in judges:
        rows += score(
            [sample for sample in samples if sample.judge == judge], judge=judge, model=model, method=method, seed=seed
        )
    if sum(judge != _ANSWERS for judge in judges) > 1:
        compared = [sample for sample in samples if sample.judge != _ANSWERS]
        rows.append(agreement_row(compared, model=model, method=method, seed=seed))
    return rows


def _threads(model: Model) -> AbstractContextManager[None]:
    return threads_for(model.api.weights.model) if isinstance(model.api, DertaAPI) else nullcontext()


def _status(display: Display, what: str) -> AbstractContextManager[Any]:
    """Where Inspect shows nothing, a terminal shows that something is going on."""
    return Console(stderr=True).status(what) if display == "none" else nullcontext()


def _device(model: Model) -> str:
    return str(model.api.weights.model.device) if isinstance(model.api, DertaAPI) else str(model)
