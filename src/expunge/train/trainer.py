"""The trainer: transformers' own loop around our step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from expunge.combine.base import Step
from expunge.core.errors import ExpungeError, UserError, near
from expunge.core.files import disk_errors
from expunge.core.permission import check_logger
from expunge.data.batch import Batch, collate
from expunge.models.forward import Forward
from expunge.models.precision import widest
from expunge.models.save import savable_generation
from expunge.train.checkpoints import checkpoints, remove, seal
from expunge.train.config import TrainConfig
from expunge.train.job import Stream, Task, TrainingJob
from expunge.train.optimizer import check_optimizer, optimizer_arguments, own_optimizer
from expunge.train.pairing import Pair, PairBatches
from expunge.train.scaling import LossScaler

STAGING = "staging"
_LOSS = "loss"
"""Name of the sum of both losses among the values of a step."""
_LOCAL_LOGGERS = ("tensorboard", "codecarbon", "dvclive", "flyte")
"""Loggers that only write files; all others send data to a service."""


class UnlearnTrainer(Trainer):
    """`transformers.Trainer` with the step of an unlearning task.

    Schedulers, callbacks, loggers, checkpoints and resume are its own. Three things differ: a step asks the combination
    rule for the gradient; a checkpoint is written under another name and renamed when it is whole; and the trainer
    itself lives on the CPU, whatever the model's device. It neither moves the model nor waits for the device: the
    values of a step are read from there together, once.

    Args:
        job: the model, its trainable weights chosen, and the settings.
        task: losses, rows and combination rule.
        callbacks: more of transformers' callbacks.
    """

    def __init__(self, job: TrainingJob, task: Task, callbacks: list[TrainerCallback]) -> None:
        model, config = job.model, job.train
        self.language_model = model
        self.inputs = job.inputs
        self.task = task
        self.step_values: dict[str, list[float]] = {}
        self.scaler = LossScaler() if model.compute == torch.float16 else None
        self._pending: list[tuple[str, Tensor]] = []
        self._grad_norm: float | None = None
        self._step_size: dict[str, int] = {}
        self.batches = batches_of(job, task)
        self.folder = job.folder
        super().__init__(
            model=model.network,
            args=_arguments(job, len(self.batches), _whole_epochs(task)),
            callbacks=callbacks,
            data_collator=self._collate,
            optimizer_cls_and_kwargs=own_optimizer(config),
        )
        self.accelerator.device_placement = False  # model, optimizer and batches stay on their devices
        self.accelerator.scaler = self.scaler  # lets accelerate skip a step and its schedule
        self.remove_callback(PrinterCallback)
        if config.gradient_checkpointing:
            model.network.gradient_checkpointing_enable()

    def release(self) -> None:
        """Free the optimizer's state and everything else that only training needs; the trainer is unusable afterwards.

        Trainer, optimizer and schedule refer to each other in circles. Python's collector would free them whenever it
        happens to run, and until then twice the trained weights would stay alive beside whatever comes next.
        """
        optimizer = self.optimizer
        for part in (optimizer, getattr(optimizer, "optimizer", None), self):  # accelerate wraps the optimizer
            if part is not None:
                vars(part).clear()

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Pairs by the seeded sampler, collated to two batches."""
        loader: DataLoader[Any] = DataLoader(_Keys(self.batches), batch_sampler=self.batches, collate_fn=self._collate)
        prepared: DataLoader[Any] = self.accelerator.prepare(loader)
        return prepared

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """The combination rule's own, if it has one; else the one that `train.optimizer` names."""
        args = self.args
        self.optimizer = self.task.combine.optimizer(
            self.language_model.trainable(), args.learning_rate, args.weight_decay
        )
        return self.optimizer or super().create_optimizer(model)

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """One micro-batch: both losses, and their combined gradient added to `.grad`; the last one clips it.

        Returns:
            The sum of both losses of all micro-batches at the last one, before that 0; on the CPU.

        Raises:
            ExpungeError: a loss is not a number.
            UserError: a loss depends on no trained weight.
        """
        self.language_model.network.train()
        scale = self.current_gradient_accumulation_steps
        losses = self.task.combine.accumulate(
            Step(
                forget=self._loss(self.task.forget, "forget", inputs),
                retain=self._loss(self.task.retain, "retain", inputs),
                backward=lambda loss: self._backpropagate(loss / scale),
                parameters=self.language_model.trainable(),
                scale=1 / scale,
                is_last=self.accelerator.sync_gradients,
            )
        )
        for stream, value in ((self.task.forget, losses.forget), (self.task.retain, losses.retain)):
            if value is not None and stream.loss is not None:
                self._pending.append((_LOSS, value))
                self._record({f"{stream.name}_loss": value, **stream.loss.logs})
        self._record(self.task.combine.logs)
        return self._end_of_step() if self.accelerator.sync_gradients else torch.zeros(())

    def _record(self, values: Mapping[str, float | Tensor]) -> None:
        """Keep values for the log, those on the device to be read at the end of the step."""
        for name, value in values.items():
            if isinstance(value, Tensor):
                self._pending.append((name, value.detach()))
            else:
                self.step_values.setdefault(name, []).append(value)

    def _end_of_step(self) -> Tensor:
        """Clip the gradient and read all values of the step: the only time that the host waits for the device."""
        weights = self.language_model.network.parameters()
        norm = torch.nn.utils.clip_grad_norm_(weights, self.args.max_grad_norm or math.inf)
        finite = norm.new_ones(()) if self.scaler is None else self.scaler.finite(norm)
        pending, self._pending = self._pending, []
        found = _read([norm, finite, *(value for _, value in pending)])
        skipped = not found[1]
        if self.scaler is not None:
            self.scaler.found(not skipped)
        self._grad_norm = None if skipped else found[0]
        total = 0.0
        for (name, _), number in zip(pending, found[2:], strict=True):
            if name == _LOSS:
                total += number
            elif math.isfinite(number) or not (skipped or (name in self.task.combine.logs and math.isnan(number))):
                self.step_values.setdefault(name, []).append(number)
        if math.isnan(total):
            hint = "" if self.scaler is None else ", or model.precision = 'float32'"
            raise ExpungeError(
                f"step {self.state.global_step + 1}: the loss is not a number; try a lower train.lr{hint}"
            )
        return torch.tensor(total / self.current_gradient_accumulation_steps)

    def _clip_grad_norm(self, model: nn.Module) -> float | None:
        """Norm of the gradient before `_end_of_step` clipped it; None for a step that will be skipped."""
        return self._grad_norm

    def _get_grad_norm(self, model: nn.Module, grad_norm: float | None = None) -> float | None:
        return self._grad_norm

    def _backpropagate(self, loss: Tensor) -> None:
        if not loss.requires_grad:
            raise UserError(
                "localize: a loss depends on no trained weight; train other weights, or change its layer or site"
            )
        if self.scaler is not None:
            self.scaler.backward(loss, self.language_model.trainable())
        else:
            loss.backward()  # type: ignore[no-untyped-call]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the step's own values to those of transformers."""
        if "learning_rate" in logs:
            logs |= {name: sum(values) / len(values) for name, values in self.step_values.items()}
            self.step_values.clear()
        super().log(logs, start_time)

    def floating_point_ops(self, inputs: Any) -> int:
        """Not estimated: transformers' formula assumes one full forward a step."""
        return 0

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor | int | None]:
        """The micro-batches of a step, counted: the last of them may be shorter than the others."""
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        self._step_size = {
            name: sum(stream.loss.size(batch[name], self.batches.epoch) for batch in batches if name in batch)
            for name, stream in self._streams()
            if stream.loss is not None
        }
        return batches, items

    def _streams(self) -> tuple[tuple[str, Stream], tuple[str, Stream]]:
        return ("forget", self.task.forget), ("retain", self.task.retain)

    def _loss(self, stream: Stream, name: str, inputs: dict[str, Batch]) -> Callable[[], Tensor]:
        """A loss over its share of the step: the mean of these over micro-batches is that over all rows or tokens."""

        def compute() -> Tensor:
            assert stream.loss is not None
            batch = inputs[name]
            size = stream.loss.size(batch, self.batches.epoch)
            share = size * self.current_gradient_accumulation_steps / (self._step_size[name] or 1)
            on_device = batch.to(self.language_model.device)
            return share * stream.loss.loss(Forward(self.language_model, on_device, stream.rows, self.batches.epoch))

        return compute

    def _collate(self, pairs: list[Pair]) -> dict[str, Batch]:
        forget = [row for row, _ in pairs]
        retain = [row for _, rows in pairs for row in rows]
        partners = tuple(row for row, rows in pairs for _ in rows)
        streams = ((self.task.forget, forget), (self.task.retain, retain))
        batches = {
            name: collate([stream.rows.sequences[row] for row in rows], rows)
            for name, (stream, rows) in zip(("forget", "retain"), streams, strict=True)
            if rows
        }
        if "retain" in batches:
            batches["retain"] = replace(batches["retain"], partners=partners)
        return batches

    def _get_output_dir(self, trial: Any) -> str:
        return str(self.folder / STAGING)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Write a checkpoint under another name, hash it, rename it. The one before it stays, in case this is damaged.

        The oldest goes first, so that the disk never has to hold three.
        """
        name = f"checkpoint-{self.state.global_step}"
        with disk_errors(self.folder):
            for old in checkpoints(self.folder)[:-1]:
                remove(old)
            with savable_generation(self.language_model.network):
                super()._save_checkpoint(model, trial)
            seal(self.folder / STAGING / name, self.inputs)
            (self.folder / STAGING / name).replace(self.folder / name)


def _read(values: list[Tensor]) -> list[float]:
    """Scalars on one device, or on the CPU, as numbers, in one transfer."""
    device = values[0].device
    wide = widest(device)
    # converted before it is moved: a device may have no float64
    found: list[float] = torch.stack([value.to(wide).to(device, non_blocking=True) for value in values]).tolist()
    return found


class _Arguments(TrainingArguments):
    """Arguments of a trainer that leaves the model on its device."""

    @property
    def place_model_on_device(self) -> bool:
        return False


class _Keys(Dataset[Pair]):
    """Identity: the sampler yields the pairs themselves."""

    def __init__(self, batches: PairBatches) -> None:
        self._length = batches.num_forget

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, pair: Pair) -> Pair:
        return pair


def check_train(config: TrainConfig) -> None:
    """Refuse names that transformers does not know, and a warm-up without an end, before anything heavy happens.

    Raises:
        UserError: unknown optimizer, option of it, or logger; a warm-up longer than the training.
    """
    check_optimizer(config)
    if config.takes_steps and config.steps is None and config.warmup_epochs > config.epochs:
        raise UserError(
            f"train.warmup_epochs: {config.warmup_epochs:g} is longer than the training (train.epochs = "
            f"{config.epochs}), so that train.lr would never be reached"
        )
    for name in config.report_to:
        if name not in INTEGRATION_TO_CALLBACK:
            raise UserError(f"train.report_to: no '{name}'{near(name, INTEGRATION_TO_CALLBACK)}")
        if name not in _LOCAL_LOGGERS:
            check_logger("train.report_to", name)


def batches_of(job: TrainingJob, task: Task) -> PairBatches:
    """The micro-batches of a training run."""
    config = job.train
    alternate = config.topics == "alternate"
    return PairBatches(
        len(task.forget.rows.sequences),
        len(task.retain.rows.sequences),
        config.batch_size,
        config.retain_ratio,
        job.seed,
        shuffled=config.order == "shuffled",
        topics=task.forget.topics if alternate else (),
        retain_topics=task.retain.topics if alternate else (),
    )


def steps_per_epoch(job: TrainingJob, task: Task) -> int:
    """Optimizer steps in one pass over the forget rows."""
    return -(-len(batches_of(job, task)) // job.train.accumulation)


def _whole_epochs(task: Task) -> int:
    """Epochs between moments at which every loss can resume; 0 when they can at any step."""
    periods = [stream.loss.whole_epochs for stream in (task.forget, task.retain) if stream.loss]
    return math.lcm(*(period for period in periods if period)) if any(periods) else 0


def _arguments(job: TrainingJob, num_batches: int, whole_epochs: int) -> TrainingArguments:
    config = job.train
    updates = -(-num_batches // config.accumulation)
    unit = whole_epochs * updates or 1
    every = -(-(config.checkpoint_every or updates) // unit) * unit
    warmup = round(config.warmup_epochs * updates)
    if config.steps is not None and warmup > config.steps:
        raise UserError(
            f"train.warmup_epochs: {warmup} steps are more than train.steps ({config.steps}), so that train.lr would "
            "never be reached"
        )
    try:
        return _Arguments(
            output_dir=str(job.folder),
            per_device_train_batch_size=config.batch_size,
            gradient_accumulation_steps=config.accumulation,
            num_train_epochs=config.epochs,
            max_steps=config.steps or -1,
            learning_rate=config.lr,
            lr_scheduler_type=config.schedule,
            warmup_steps=warmup,
            weight_decay=config.weight_decay,
            max_grad_norm=config.max_grad_norm,
            **optimizer_arguments(config),
            save_strategy="steps" if config.checkpoints else "no",
            save_steps=every,
            logging_steps=1,
            logging_nan_inf_filter=False,
            report_to=list(config.report_to) or "none",
            seed=job.seed,
            use_cpu=True,
            disable_tqdm=True,
            remove_unused_columns=False,
            dataloader_pin_memory=False,
        )
    except ValueError as error:
        raise UserError(f"train: {str(error).splitlines()[0]}") from None
