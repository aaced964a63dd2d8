"""The guard: measures the model during training, and stops or rolls back before utility is lost.

Checks are written to the trainer's own log, which checkpoints keep, so a resumed run decides as an unbroken one would.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from expunge.core.errors import ExpungeError, UserError, near
from expunge.core.files import replacing
from expunge.core.progress import Bar
from expunge.core.records import Check, GuardOutcome, StepLog
from expunge.data.encode import Encoded
from expunge.data.generator import named_generator
from expunge.models.base import LanguageModel
from expunge.models.forward import RowSet, row_set, score_rows
from expunge.models.tensor_file import each_tensor, is_intact, write_tensors
from expunge.train.config import GuardConfig
from expunge.train.job import Method, TrainingJob

_FORGET = "check_forget"
_UTILITY = "check_utility"
_GOOD = "good.safetensors"
_NOT_OURS = {"step", "epoch", _FORGET, _UTILITY}
_ALWAYS_LOGGED = ("loss", "forget_loss", "retain_loss", "grad_norm", "learning_rate")


class Guard(TrainerCallback):
    """Measures a sample of forget rows and of held-out retain rows at intervals, and decides.

    Args:
        job: the model being trained, thresholds, and the folder for the last good weights.
        forget: encoded forget rows.
        held_out: encoded retain rows that are not trained on; without any, the utility floor is off.
        steps_per_epoch: optimizer steps.
        bar: progress of the training.
        start: the check of the original model, if an edit came before the training.
    """

    def __init__(
        self,
        job: TrainingJob,
        forget: Sequence[Encoded],
        held_out: Sequence[Encoded],
        steps_per_epoch: int,
        bar: Bar,
        start: Check | None = None,
    ) -> None:
        model, config = job.model, job.guard
        self.model = model
        self.forget = row_set(model, _sample(forget, config.rows, f"{job.seed}/guard/forget"))
        self.utility = row_set(model, _sample(held_out, config.rows, f"{job.seed}/guard/utility"))
        self.config = config
        self.every = config.every or steps_per_epoch
        self.good = job.folder / _GOOD
        self.trainer: Trainer | None = None
        self.bar = bar
        self.start = start
        self.outcome = GuardOutcome(utility_floor=(config.utility_floor or None) if held_out else None)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Check and keep the untouched model."""
        self.bar.advance(state.global_step)
        if state.global_step == 0:
            self._check(state)
            self.keep()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Check at intervals; stop when the knowledge is gone or utility falls."""
        self.bar.advance()
        if state.global_step % self.every and state.global_step < state.max_steps:
            return
        check = self._check(state)
        start = self.start or checks_of(state)[0]
        floor = self.outcome.utility_floor
        if floor is not None and not check.utility >= floor * start.utility:  # a NaN is below every floor
            good = self._last_good(state)
            self.go_back()
            share = share_kept(check, start)
            self._stop(
                control,
                good.step,
                f"Utility on held-out retain rows fell to {share} of its start at step "
                f"{check.step} (floor {floor:.0%}), so training stopped and the weights of step {good.step} were kept.",
            )
            return
        target = self.config.forget_target
        if target is not None and check.forget <= target:
            message = (
                f"Training stopped at step {check.step}: answer probability on forget rows reached {check.forget:.3f}"
            )
            self._stop(control, None, f"{message} (target {target:g}).")
            return
        self.keep()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Stop when a value of the step has crossed its bound."""
        if not logs or "learning_rate" not in logs or control.should_training_stop:
            return
        config = self.config
        crossed = [
            *_crossed(logs, "stop_below", config.stop_below, operator.le),
            *_crossed(logs, "stop_above", config.stop_above, operator.ge),
        ]
        if not crossed:
            return
        self._stop(control, None, f"Training stopped at step {state.global_step}: {crossed[0]}.")
        if checks_of(state)[-1].step < state.global_step:
            self._check(state)
            control.should_log = False

    def _check(self, state: TrainerState) -> Check:
        assert self.trainer is not None
        forget, utility = self.measure()
        self.trainer.log({_FORGET: forget, _UTILITY: utility})
        self.trainer.control.should_log = state.global_step > 0  # a log of our own must not replace the step's
        self.bar.note(f"forget {forget:.3f}  utility {utility:.3f}")
        return checks_of(state)[-1]

    def measure(self) -> tuple[float, float]:
        """Mean answer probability on forget rows and on held-out retain rows, now."""
        return _probability(self.model, self.forget), _probability(self.model, self.utility)

    def can_go_back(self) -> bool:
        """Whether the weights that an earlier process kept are intact, or the guard cannot need them."""
        return self.outcome.utility_floor is None or is_intact(self.good)

    def check_end(self, state: TrainerState) -> None:
        """Never leave a model with non-finite results: restore the last good weights, or fail.

        Raises:
            ExpungeError: trained weights, or answers, are not finite and no earlier weights were kept.
        """
        if self.is_finite():
            return
        if self.outcome.utility_floor is None:
            raise ExpungeError(
                f"training diverged: after step {state.global_step} the model's weights or answers are not finite "
                "numbers; try a lower train.lr in another --out, or a guard.utility_floor that goes back in time"
            )
        good = self._last_good(state)
        self.go_back()
        message = f"Training diverged by step {state.global_step}, and the weights of step {good.step} were kept."
        self.outcome = self.outcome.model_copy(update={"stopped": True, "restored_step": good.step, "message": message})

    def is_finite(self) -> bool:
        """Whether the trained weights, and the probabilities of answers to forget rows, are numbers."""
        return all(bool(torch.isfinite(one).all()) for one in self.model.trainable()) and math.isfinite(
            _probability(self.model, self.forget)
        )

    def _last_good(self, state: TrainerState) -> Check:
        """The last check whose weights were kept."""
        checks, floor = checks_of(state), self.outcome.utility_floor or 0.0
        start = self.start or checks[0]
        return max((check for check in checks if check.utility >= floor * start.utility), key=lambda check: check.step)

    def keep(self) -> None:
        """Save the trainable weights, so that a later check can restore them."""
        if self.outcome.utility_floor is None:
            return
        self.good.parent.mkdir(parents=True, exist_ok=True)
        named = self.model.network.named_parameters()
        with replacing(self.good) as partial:
            write_tensors(partial, {name: parameter for name, parameter in named if parameter.requires_grad})

    def go_back(self) -> None:
        """Restore the kept weights.

        Raises:
            ExpungeError: the file was damaged while training ran.
        """
        if not is_intact(self.good):
            raise ExpungeError(f"{self.good}: damaged, so that the guard cannot restore them; run again with --resume")
        parameters = dict(self.model.network.named_parameters())
        with torch.no_grad():
            for name, tensor in each_tensor(self.good):
                parameters[name].copy_(tensor)

    def _stop(self, control: TrainerControl, restored_step: int | None, message: str) -> None:
        """End training; no checkpoint is written at a stop, so that a resume decides again from an earlier one."""
        control.should_training_stop = True
        control.should_save = False
        self.outcome = self.outcome.model_copy(
            update={"stopped": True, "restored_step": restored_step, "message": message}
        )


def share_kept(check: Check, start: Check) -> str:
    """Utility as a share of that at the start, in words."""
    if not math.isfinite(check.utility) or not start.utility:
        return "no finite number"
    return f"{check.utility / start.utility:.0%}"


def checks_of(state: TrainerState) -> list[Check]:
    """Every check so far, from the trainer's log."""
    return [
        Check(step=entry["step"], epoch=entry.get("epoch") or 0.0, forget=entry[_FORGET], utility=entry[_UTILITY])
        for entry in state.log_history
        if _FORGET in entry
    ]


def steps_of(state: TrainerState) -> list[StepLog]:
    """Every optimizer step's values, from the trainer's log."""
    return [
        StepLog(
            step=entry["step"],
            epoch=entry["epoch"],
            values={name: float(value) for name, value in entry.items() if name not in _NOT_OURS},
        )
        for entry in state.log_history
        if "learning_rate" in entry
    ]


def check_bounds(config: GuardConfig, method: Method) -> None:
    """Refuse a bound on a value that no step logs: it would never stop anything.

    Raises:
        UserError: a name that neither the trainer nor the method logs.
    """
    known = [*_ALWAYS_LOGGED, *method.forget.logged, *method.retain.logged, *method.combine.logged]
    for option, bounds in (("stop_below", config.stop_below), ("stop_above", config.stop_above)):
        if unknown := next((name for name in bounds if name not in known), None):
            raise UserError(
                f"guard.{option}: no step logs a value '{unknown}'{near(unknown, known)}; "
                f"logged here: {', '.join(dict.fromkeys(known))}"
            )


def unseen_bounds(config: GuardConfig, steps: Sequence[StepLog]) -> list[str]:
    """Warnings of bounds on values that no step of a training logged, e.g. the loss of a stream of weight 0."""
    logged = {name for step in steps for name in step.values}
    return [
        f"No step logged '{name}', so guard.{option} could not stop anything."
        for option, bounds in (("stop_below", config.stop_below), ("stop_above", config.stop_above))
        for name in bounds
        if steps and name not in logged
    ]


def _crossed(
    logs: dict[str, float], option: str, bounds: dict[str, float], beyond: Callable[[float, float], bool]
) -> Iterator[str]:
    """Which values of a step lie beyond their bounds, in words; a step need not log every value."""
    for name, bound in bounds.items():
        if name in logs and beyond(logs[name], bound):
            yield f"{name} was {logs[name]:.3g} (guard.{option} {bound:g})"


def _sample(rows: Sequence[Encoded], count: int, name: str) -> list[Encoded]:
    order = torch.randperm(len(rows), generator=named_generator(name))[:count].tolist()
    return [rows[index] for index in order]


def _probability(model: LanguageModel, rows: RowSet) -> float:
    """Mean over rows of the geometric-mean token probability; 0 without rows."""
    if not rows.sequences:
        return 0.0
    scored = score_rows(model, rows.sequences, inputs=rows.inputs)
    return float(torch.stack([logp.mean().exp() for logp in scored]).mean())
