"""Evaluate a model: plan what to ask, let Inspect run it, count. Inspect resumes a run and keeps its logs."""

import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from inspect_ai import Task, eval_set
from inspect_ai.model import Model

from derta.errors import InputError
from derta.evaluation.attacks import Capability, Role, organism_attacker
from derta.evaluation.config import MAX_TOKENS, Options
from derta.evaluation.harness.judges import asking, load_judge
from derta.evaluation.harness.log import check_ended, check_logs, going_on_from, read_log
from derta.evaluation.harness.models import load_model, load_tokenizer, world_of
from derta.evaluation.harness.progress import showing_progress
from derta.evaluation.harness.provider import DertaAPI, tuned_with
from derta.evaluation.harness.target import Helper, check_capabilities, continues
from derta.evaluation.harness.tasks import make_task
from derta.evaluation.inputs.questions import CHECKED, answer_judge
from derta.evaluation.judges import Judge
from derta.evaluation.judges.pairwise import pairwise
from derta.evaluation.judges.version import judge_version
from derta.evaluation.plan import Plan, make_plan
from derta.evaluation.results.judge_quality import JudgeQuality
from derta.evaluation.results.metrics import MetricRow, ModelId
from derta.evaluation.results.outcomes import ANSWERS
from derta.evaluation.results.plan_file import PLAN, Unmet, read_plan
from derta.evaluation.results.sample import Sample
from derta.evaluation.results.store import (
    LOGS,
    RESPONSES,
    claim,
    load_samples,
    model_settings,
    save_evaluation,
    save_plan,
)
from derta.files import file_digest, weights_digest
from derta.generation import check_room
from derta.generation.loading import fingerprint
from derta.names import GUARDED
from derta.redaction import redacted
from derta.terminal import screen
from derta.threads import threads_for
from derta.version import code_digest


@dataclass(frozen=True)
class Measured:
    """What came of an evaluation.

    Attributes:
        rows: The numbers.
        samples: Every judged response.
        unmet: What was planned and isn't there.
    """

    rows: list[MetricRow]
    samples: list[Sample]
    unmet: list[Unmet]


def plan_for(name: str, options: Options) -> Plan:
    """Settle what a model will be asked, without its weights.

    Raises:
        InputError: A file or an option is wrong, or the model isn't there.
    """
    return make_plan(options, load_tokenizer(name, options.model_args), world=world_of(name))


def evaluate_directory(name: str, *, out: Path, options: Options, qualities: Sequence[JudgeQuality] = ()) -> Measured:
    """Evaluate a model into the directory `out`, or finish what is there.

    Samples that are already in `out` are neither taken nor judged again.

    Args:
        name: Names the model: see `load_model`.
        out: Gets `evaluation.json`, `plan.json`, `logs/`, `responses.jsonl` and `results.json`.
        options: What to ask.
        qualities: The errors of judges: shares are reported corrected for them as well.

    Raises:
        InputError: The model, a file, an option or the directory is wrong.
    """
    # What is wrong with a file is told before a model is loaded.
    plan = plan_for(name, options)
    model = load_model(name, dict(options.model_args) | ({"guard": options.guard} if options.guard else {}))
    tasks = make_tasks(model, plan)
    api = model.api
    tuned = tuned_with(api.model_name) if isinstance(api, DertaAPI) else {}
    digest = fingerprint(api.weights.model) if isinstance(api, DertaAPI) else None
    # A guarded model is another system than the model alone, also where methods are averaged over seeds.
    suffix, method = GUARDED if options.guard else "", tuned.get("method")
    which = ModelId(name + suffix, digest, method and method + suffix, tuned.get("seed"))
    settings = _settings(which, model, plan.options)
    claim(out, settings, plan.digests())
    screen.log_to(out)
    known = {"fingerprint": settings["fingerprint"], "dtype": settings["dtype"]}
    # Whether begun answers reach a server as text that was rendered here, with the tokenizer that was named.
    rendered_here = plan.tokenizer is not None and not continues(model)
    document = plan.to_json(name, **known, rendered_here=rendered_here)
    save_plan(out, document)
    threads = threads_for(api.weights.model) if isinstance(api, DertaAPI) else nullcontext()
    totals = {task: len(samples) * plan.options.epochs for task, samples in plan.samples.items()}
    check_logs(out / LOGS)
    with threads, going_on_from(out / LOGS), showing_progress(totals, out / LOGS):
        _, logs = eval_set(
            list(tasks.values()),
            log_dir=str(out / LOGS),
            model=model,
            model_roles={role: load_model(played_by) for role, played_by in options.model_roles.items()},
            display="none",
            retry_attempts=0,
            retry_immediate=False,
            max_tasks=len(tasks),
            fail_on_error=False,
            # Also the samples since the last write survive a kill.
            log_realtime=True,
            ctl_server=False,
            log_dir_allow_dirty=True,
            score_display=False,
            max_connections=api.max_connections(),
        )
    check_ended(logs, len(tasks))
    log_of = {log.eval.task: log for log in logs}
    judged = [pair for task, planned in plan.samples.items() for pair in read_log(log_of[task], planned)]
    samples = [sample for sample, _ in judged]
    device = str(api.weights.model.device) if isinstance(api, DertaAPI) else str(model)
    for judge, verdicts in _judged_afterwards(out, samples).items():
        samples += verdicts
        for task in document["tasks"].values():
            task["judges"] += [judge] if task["judges"] != [ANSWERS] else []
    unmet = read_plan(document, out / PLAN).find_unmet(samples)
    told = [each.to_json() for each in unmet]
    versions = {"torch": torch.__version__, "device": device}
    made_of = digests_of(plan, settings)
    rows = save_evaluation(out, samples, which, document, qualities, **versions, digests=made_of, unmet=told)
    for sample, error in judged:
        if error is not None and error.kind == "input":
            raise InputError(f"{sample.attack}: {error.message}")
    return Measured(rows, samples, unmet)


def digests_of(plan: Plan, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the digests of all that an evaluation was made of: model, data, prompts, judges and code."""
    options = plan.options
    asked = (options.behaviours, *options.borderline, options.prompts, *options.tasks.values())
    named = (*asked, options.templates, options.demonstrations, options.neighbours)
    files = [Path(name) for name in named if name and Path(name).is_file()]
    return {
        "model": settings["files"] or settings["fingerprint"],
        "data": {str(path): file_digest(path) for path in files},
        "prompts": plan.digests(),
        "judges": {judge.name: judge_version(judge.name) for judge in options.judges},
        "code": code_digest(),
    }


def make_tasks(model: Model, plan: Plan) -> dict[str, Task]:
    """Return the Inspect tasks that take a plan's samples, by name.

    Raises:
        InputError: An attack can't be carried out on this model, or a judge is missing.
    """
    options = plan.options
    judges = {judge.name: load_judge(judge) for judge in options.judges}
    _check(model, plan)
    attacker: dict[Role, Helper] | None = {"attacker": organism_attacker(options.seed)} if plan.scripted else None
    tasks = {}
    for name, samples in plan.samples.items():
        own = _answer_judges(name, options) if name in options.tasks else judges
        tasks[name] = make_task(name, samples, plan, own, attacker)
    return tasks


def _answer_judges(task: str, options: Options) -> dict[str, Judge]:
    if task in CHECKED:
        return {ANSWERS: answer_judge(task)}
    if "judge" not in options.model_roles:
        raise InputError(f"`task` {task}: answers are compared by a model: give `model_role` judge=PROVIDER/MODEL")
    return {ANSWERS: pairwise(asking(load_model(options.model_roles["judge"])))}


def _check(model: Model, plan: Plan) -> None:
    """Stop before anything is generated if something can't be asked."""
    options = plan.options
    needed: dict[Capability, str] = {}
    for name, samples in plan.samples.items():
        spec = plan.attack(name)
        if spec is None or (spec.searches and all(sample.attempt for sample in samples)):
            continue  # a task, or a search whose result is there, in a file
        for capability in sorted(spec.requires):
            needed.setdefault(capability, spec.name)
    attack = needed.pop("attacker", None)
    if attack and "attacker" not in options.model_roles and not plan.scripted:
        raise InputError(f"`attacks` {attack}: needs an attacking model: give `model_role` attacker=PROVIDER/MODEL")
    check_capabilities(model, needed, plan.tokenizer)
    api = model.api
    if isinstance(api, DertaAPI):
        weights = api.weights
        requests = [
            each.attempt.request if each.attempt else plan.context.ask(each.behaviour.prompt)
            for samples in plan.samples.values()
            for each in samples
        ]
        most = options.max_new_tokens or MAX_TOKENS
        check_room(weights.model, weights.tokenizer, requests, most, weights.chat_template_kwargs)
        probe = requests[0] if requests else plan.context.ask("Hello")
        if api.engine.submit(probe, 1).result().problem:
            raise InputError(
                f"`model` {api.model_name}: its logits aren't finite numbers: the weights are damaged, or overflow in "
                f"{str(weights.model.dtype).removeprefix('torch.')}"
            )


def _judged_afterwards(out: Path, samples: Sequence[Sample]) -> dict[str, list[Sample]]:
    """Return the verdicts of each judge that was asked about all of these very responses after the evaluation."""
    if not (out / RESPONSES).exists():
        return {}
    responses = {each.key[:-1]: each.continuation for each in samples if each.judge != ANSWERS}
    judges = {each.judge for each in samples}
    held: dict[str, list[Sample]] = {}
    for each in load_samples(out):
        if each.judge not in judges and responses.get(each.key[:-1]) == each.continuation:
            held.setdefault(each.judge, []).append(each)
    return {judge: verdicts for judge, verdicts in held.items() if len(verdicts) == len(responses)}


def _settings(which: ModelId, model: Model, options: Options) -> dict[str, Any]:
    """Return what makes samples comparable; attacks and tasks may be added later."""
    kept = asdict(options)
    for growing in ("attacks", "harmless_under", "tasks"):
        kept.pop(growing)
    api = model.api
    precision = str(api.weights.model.dtype).removeprefix("torch.") if isinstance(api, DertaAPI) else None
    files = weights_digest(Path(which.model.removesuffix(GUARDED)).expanduser())
    # What the file says counts, wherever it lies; an evaluation without a guard says nothing of it.
    kept.pop("guard")
    if isinstance(api, DertaAPI) and api.guard:
        kept["guard"] = asdict(api.guard)
    settings = {
        **model_settings(which),
        "fingerprint": which.digest or str(model),
        "files": files,
        "dtype": precision,
        **redacted(kept),
    }
    return dict(json.loads(json.dumps(settings)))
