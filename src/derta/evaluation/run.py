"""Evaluate a model: plan what to ask, let Inspect run it, count. Inspect resumes a run and keeps its logs."""

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from inspect_ai import Task, eval_set
from inspect_ai.log import EvalLog
from inspect_ai.model import Model

from derta.errors import InputError
from derta.evaluation.attacks import Capability, Role, attack_names, organism_attacker
from derta.evaluation.config import MAX_TOKENS, JudgeName, Options
from derta.evaluation.harness.judges import asking, load_judge
from derta.evaluation.harness.log import check_ended, check_logs, going_on_from, read_log
from derta.evaluation.harness.models import load_model, load_tokenizer, world_of
from derta.evaluation.harness.progress import showing_progress
from derta.evaluation.harness.provider import DertaAPI, tuned_with
from derta.evaluation.harness.target import Helper, check_capabilities, continues
from derta.evaluation.harness.tasks import make_task
from derta.evaluation.inputs.questions import CHECKED, answer_judge
from derta.evaluation.judges import Judge
from derta.evaluation.judges.known_answers import check_known_answers
from derta.evaluation.judges.pairwise import pairwise
from derta.evaluation.judges.version import judge_version
from derta.evaluation.plan import Plan, make_plan
from derta.evaluation.results.judge_quality import JudgeQuality
from derta.evaluation.results.metrics import ModelId
from derta.evaluation.results.outcomes import ANSWERS
from derta.evaluation.results.store import LOGS, Evaluation, claim, model_settings, save_evaluation, task_of
from derta.files import weights_digest
from derta.generation import check_room
from derta.generation.loading import fingerprint
from derta.names import GUARDED
from derta.redaction import redacted
from derta.terminal import screen
from derta.termination import run_to_end
from derta.threads import threads_for
from derta.version import code_digest


def plan_for(name: str, options: Options) -> Plan:
    """Settle what a model will be asked, without its weights.

    Raises:
        InputError: A file or an option is wrong, or the model isn't there.
    """
    return make_plan(options, load_tokenizer(name, options.model_args), world=world_of(name))


def evaluate(
    model: str,
    *,
    behaviours: str | None = None,
    attacks: Sequence[str] | None = None,
    judge: str | None = None,
    out: str | Path | None = None,
    **options: Any,
) -> Evaluation:
    """Attack a model and judge its responses.

        evaluation = derta.evaluate("runs/m", behaviours="harmful.jsonl", attacks=["direct", "prefill"])
        evaluation.to_pandas()

    Args:
        model (`str`): Directory, adapter, hub name, `organism`, or `PROVIDER/MODEL` of Inspect's.
        behaviours (`str`, *optional*): File of harmful prompts; the organism has its own.
        attacks (`Sequence[str]`, *optional*, defaults to direct, prefill and completing): Names of attacks.
        judge (`str`, *optional*, defaults to `refusal`): `NAME` or `NAME=PROVIDER/MODEL`.
        out (`str` or `Path`, *optional*, defaults to a temporary directory): Directory for responses and results; what
            is finished there isn't asked again.
        options (*optional*): Further fields of [`Options`][derta.evaluation.config.Options].
    """
    asked = Options(
        attacks=tuple(attack_names(",".join(attacks))) if attacks is not None else None,
        behaviours=behaviours,
        judges=(JudgeName.parse(judge),) if judge else (),
        **options,
    )
    place = Path(out) if out is not None else Path(tempfile.mkdtemp(prefix="derta-"))
    return evaluate_directory(model, out=place, options=asked)


def evaluate_directory(name: str, *, out: Path, options: Options) -> Evaluation:
    """Plan an evaluation of a model and carry it out: see [`evaluate_plan`]."""
    # What is wrong with a file is told before a model is loaded.
    return evaluate_plan(name, plan_for(name, options), out=out)


def evaluate_plan(name: str, plan: Plan, *, out: Path, qualities: Sequence[JudgeQuality] = ()) -> Evaluation:
    """Evaluate a model into the directory `out`, or finish what is there.

    Tasks that are finished in `out` are neither asked nor judged again; those under way go on from Inspect's logs.

    Args:
        name: Names the model: see `load_model`.
        plan: What to ask.
        out: Gets `evaluation.json`, `logs/`, `responses.jsonl` and `results.json`.
        qualities: The errors of judges: shares are reported corrected for them as well.

    Raises:
        InputError: The model, a file, an option or the directory is wrong.
    """
    options = plan.options
    model = load_model(name, dict(options.model_args) | ({"guard": options.guard} if options.guard else {}))
    for judge in options.judges:
        if judge.model:
            # Loaded for this alone: a client of a server doesn't outlive its event loop.
            run_to_end(check_known_answers(judge.name, load_judge(judge)))
    tasks = make_tasks(model, plan)
    api = model.api
    claimed = claim(out, _settings(name, model, plan), plan.tasks())
    screen.log_to(out)
    finished = {task_of(sample) for sample in claimed.samples}
    under_way = [task for task in plan.samples if plan.samples[task] and task not in finished]
    samples, errors = list(claimed.samples), []
    if under_way:
        totals = {task: len(plan.samples[task]) * options.epochs for task in under_way}
        roles = {role: load_model(played_by) for role, played_by in options.model_roles.items()}
        logs = _run_tasks(model, [tasks[task] for task in under_way], totals, out / LOGS, roles)
        for task in under_way:
            for sample, error in read_log(logs[task], plan.samples[task]):
                samples.append(sample)
                errors += [f"{sample.attack}: {error.message}"] if error and error.kind == "input" else []
    kept = {each.judge: each for each in (*claimed.qualities, *qualities)}
    evaluation = replace(claimed, samples=samples, qualities=tuple(kept.values()))
    device = str(api.weights.model.device) if isinstance(api, DertaAPI) else str(model)
    save_evaluation(evaluation, torch=torch.__version__, device=device, code=code_digest())
    if errors:
        raise InputError(errors[0])
    return evaluation


def _run_tasks(
    model: Model, tasks: list[Task], totals: Mapping[str, int], logs: Path, roles: dict[str, Model]
) -> dict[str, EvalLog]:
    """Let Inspect take the samples of tasks, as far as its logs haven't got them; return each task's log."""
    api = model.api
    threads = threads_for(api.weights.model) if isinstance(api, DertaAPI) else nullcontext()
    check_logs(logs)
    with threads, going_on_from(logs), showing_progress(totals, logs):
        _, ended = eval_set(
            tasks,
            log_dir=str(logs),
            model=model,
            model_roles=dict(roles),
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
    check_ended(ended, len(tasks))
    return {log.eval.task: log for log in ended}


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


def _settings(name: str, model: Model, plan: Plan) -> dict[str, Any]:
    """Return what makes samples comparable; attacks and tasks may be added later."""
    options, api = plan.options, model.api
    kept = asdict(options)
    for growing in ("attacks", "harmless_under", "tasks"):
        kept.pop(growing)
    # What the file says counts, wherever it lies; an evaluation without a guard says nothing of it.
    kept.pop("guard")
    if isinstance(api, DertaAPI) and api.guard:
        kept["guard"] = asdict(api.guard)
    here = api.weights.model if isinstance(api, DertaAPI) else None
    tuned = tuned_with(api.model_name) if isinstance(api, DertaAPI) else {}
    digest = fingerprint(here) if here is not None else None
    # A guarded model is another system than the model alone, also where methods are averaged over seeds.
    suffix, method = GUARDED if options.guard else "", tuned.get("method")
    which = ModelId(name + suffix, digest, method and method + suffix, tuned.get("seed"))
    return {
        **model_settings(which),
        "fingerprint": digest or str(model),
        "files": weights_digest(Path(name).expanduser()),
        "dtype": str(here.dtype).removeprefix("torch.") if here is not None else None,
        "depths_counted_in": plan.depths_counted_in,
        # Whether begun answers reach a server as text that was rendered here, with the tokenizer that was named.
        "rendered_here": plan.tokenizer is not None and not continues(model),
        "judge_versions": {judge.name: judge_version(judge.name) for judge in options.judges},
        **redacted(kept),
    }
