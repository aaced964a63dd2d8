"""One short unlearning run, as the train tests vary it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from expunge.combine.base import Combine
from expunge.combine.weighted_sum import WeightedSum
from expunge.core.plugins import find
from expunge.core.progress import Bar, Progress
from expunge.data.example import Example
from expunge.losses.base import Loss
from expunge.models.adapter import add_lora
from expunge.models.base import LanguageModel
from expunge.models.config import LoraConfig
from expunge.models.forward import score_rows
from expunge.train.checkpoints import inputs_of
from expunge.train.config import GuardConfig, SqueezeConfig, TrainConfig
from expunge.train.fit import TrainingResult
from expunge.train.job import Method, TrainingJob
from expunge.train.unlearn import prepare, unlearn


class Watching(Progress):
    """Calls `after_step(n)` when optimizer step n has been taken, before anything is checked or saved."""

    def __init__(self, after_step: Callable[[int], None]) -> None:
        self.after_step = after_step

    @contextmanager
    def bar(self, label: str, total: float) -> Iterator[Bar]:
        if label != "training":
            yield Bar()
            return
        watch = self

        class Counting(Bar):
            step = 0

            def advance(self, amount: float = 1) -> None:
                self.step += int(amount)
                if amount == 1:
                    watch.after_step(self.step)

        yield Counting()


@dataclass
class Unlearning:
    """A run on a fresh copy of the taught model; change a field to vary it."""

    model: LanguageModel
    examples: dict[str, tuple[Example, ...]]
    folder: Path
    forget: str = "npo"
    retain: str = "nll"
    lora: LoraConfig | None = None
    seed: int = 0
    train: TrainConfig = TrainConfig(lr=1e-3, epochs=2, batch_size=4, schedule="constant")  # noqa: RUF009 - frozen
    guard: GuardConfig = GuardConfig(utility_floor=None)  # noqa: RUF009 - frozen
    forget_loss: Loss | None = None
    retain_loss: Loss | None = None
    squeeze: SqueezeConfig | None = None
    combine: Combine | None = None
    module: str = ""
    """Train only the weights whose name holds this."""

    def run(self, after_step: Callable[[int], None] = lambda _: None) -> TrainingResult:
        names = [name for name, _ in self.model.network.named_parameters() if self.module in name]
        if self.lora:
            add_lora(self.model, names, self.lora, self.seed)
        else:
            self.model.freeze_but(names)
        job = TrainingJob(
            self.model,
            self.train,
            self.guard,
            self.seed,
            self.folder,
            Watching(after_step),
            inputs_of(self.model, [("forget", self.examples["forget"])]),
            squeeze=self.squeeze,
        )
        method = Method(
            self.forget_loss or filler("forget", self.forget),
            self.retain_loss or filler("retain", self.retain),
            self.combine or WeightedSum(WeightedSum.Config()),
        )
        return unlearn(job, prepare(job, method, self.examples["forget"], self.examples["retain"]))

    def weights(self) -> dict[str, Tensor]:
        """A copy of every weight that may move."""
        named = self.model.network.named_parameters()
        return {name: weight.detach().clone() for name, weight in named if weight.requires_grad}

    def probability(self, rows: Sequence[Example]) -> float:
        """Mean over rows of the geometric-mean probability of an answer's tokens."""
        encoded = [self.model.encoder.example(row) for row in rows]
        return float(torch.stack([logp.mean().exp() for logp in score_rows(self.model, encoded)]).mean())


def filler(slot: str, name: str) -> Loss:
    build = find(slot, name, Loss)
    return build(build.Config())
