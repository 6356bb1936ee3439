"""Attack success while a model trains: a few behaviours, attacks and borderline prompts every so many steps.

It runs in the training process, on the weights as they are, without Inspect: attacks that ask once, judges that need no
model. It draws nothing and changes nothing, so that a run with it ends with the same weights as one without.
"""

from typing import Any, cast

from transformers import PreTrainedTokenizerBase, Trainer, TrainerCallback, TrainerControl, TrainerState

from derta.errors import InputError
from derta.evaluation.config import Options
from derta.evaluation.in_process import answer_and_judge, check_asks_once
from derta.evaluation.judges import make_judge
from derta.evaluation.plan import Plan, make_plan
from derta.evaluation.results.metrics import MetricRow, ModelId, count
from derta.training.run_trainer import answering_model

_OF_ATTACKS = ("asr", "broken", "unscored")
_OF_HARMLESS = (
    *("over_refusal", "helpful_refusal", "borderline_broken", "helpful_broken"),
    *("borderline_unscored", "helpful_unscored"),
)


class AttackSuccessCallback(TrainerCallback):
    """Measures attack success and over-refusal every `every` steps, and logs them beside the losses.

        trainer.add_callback(AttackSuccessCallback(trainer, Options(("direct", "prefill"), "harmful.jsonl"), every=50))

    Args:
        trainer: Trains the model, and logs.
        options: Says what to ask, as for `derta eval`; answers are greedy.
        every: Is how many steps lie between two measurements.
        world: Says which of the organism's worlds the model knows, if any: its behaviours are the default then.

    Raises:
        InputError: An option or a file is wrong; an attack asks more than once, or a judge is a model; the weights are
            spread over processes, so that none of them could answer.
    """

    def __init__(self, trainer: Trainer, options: Options, *, every: int, world: int | None = None) -> None:
        if every < 1:
            raise InputError(f"attack_steps: {every} is not 1 or more")
        if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
            raise InputError("attack_steps: the weights are sharded; evaluate the checkpoints with derta eval instead")
        self.every = every
        self.history: list[tuple[int, list[MetricRow]]] = []
        self._trainer = trainer
        self._tokenizer = cast(Any, trainer.processing_class)
        self._plan = plan_of(options, self._tokenizer, world)

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **others: Any) -> None:
        """Measure if it is time, and after the last step."""
        if state.global_step % self.every and state.global_step < state.max_steps:
            return
        if not state.is_world_process_zero:
            return
        rows = self.measure()
        if not rows:
            return
        self.history.append((state.global_step, rows))
        # Logging takes the step's own log for done; its losses are still to come.
        should_log = control.should_log
        self._trainer.log(values(rows))
        control.should_log = should_log

    def measure(self) -> list[MetricRow]:
        """Return the rows of the model as it is now; none if the run was asked to end meanwhile."""
        model = answering_model(self._trainer)
        template = getattr(self._trainer.args, "chat_template_kwargs", None)
        name = str(getattr(self._trainer.args, "output_dir", "")) or "model"
        samples = answer_and_judge(model, self._tokenizer, self._plan, chat_template_kwargs=template)
        return count(samples, ModelId(name))


def plan_of(options: Options, tokenizer: PreTrainedTokenizerBase, world: int | None = None) -> Plan:
    """Settle what is asked while a model trains.

    Raises:
        InputError: An option or a file is wrong; an attack asks more than once, or a judge is a model.
    """
    plan = make_plan(options, tokenizer, world=world)
    check_asks_once(plan, "while training")
    for judge in plan.options.judges:
        make_judge(judge.name)
    return plan


def values(rows: list[MetricRow]) -> dict[str, float]:
    """Return what is logged of the first judge: `asr_prefill`, `over_refusal`, …, in the rows' units."""
    whole = [row for row in rows if row.variant is None and row.judge == rows[0].judge and row.value is not None]
    of_attacks = {f"{row.metric}_{row.attack}": row.value for row in whole if row.metric in _OF_ATTACKS}
    of_harmless = {
        row.metric if row.attack == "direct" else f"{row.metric}_{row.attack}": row.value
        for row in whole
        if row.metric in _OF_HARMLESS
    }
    return cast(dict[str, float], of_attacks | of_harmless)
