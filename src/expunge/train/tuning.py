"""Fine-tuning on the rows of a stream, for methods that compare the model with what it becomes by it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from expunge.core.errors import ExpungeError
from expunge.core.progress import SILENT, Progress
from expunge.losses.base import Loss, Setup, TuningConfig, View
from expunge.models.forward import RowSet
from expunge.models.reference_weights import OriginalWeights
from expunge.numerics.token import reduce_tokens
from expunge.train.config import GuardConfig, TrainConfig
from expunge.train.teach import Alone
from expunge.train.trainer import NOTHING, Stream, Task
from expunge.train.unlearn import take_steps

_NO_GUARD = GuardConfig(utility_floor=0.0, rows=4)


class Likelihood(Loss):
    """Mean negative log-probability of a row's labels."""

    def loss(self, view: View) -> Tensor:
        """Mean over a row's tokens, then over rows."""
        return -reduce_tokens(view.token_logp(), view.batch.rows, view.batch.num_rows, "seq_mean")


def fine_tune(
    setup: Setup,
    config: TuningConfig,
    *,
    seed: int,
    folder: Path,
    checkpoints: bool = True,
    progress: Progress = SILENT,
    inputs: Mapping[str, str] | None = None,
) -> OriginalWeights:
    """Train the model to give the answers of the rows, and put its weights back; a second call finds the checkpoints.

    Args:
        setup: the model, its trainable weights chosen, and the rows.
        config: length and strength.
        seed: of the order of the rows.
        folder: for checkpoints.
        checkpoints: whether to write any.
        progress: where to report.
        inputs: hashes of what training starts from; a checkpoint of another start is refused.

    Returns:
        The weights after fine-tuning.

    Raises:
        ExpungeError: they are not finite numbers.
    """
    weights = OriginalWeights(setup.model)
    stream = Stream("tuning", Likelihood(None), RowSet(setup.sequences, inputs=setup.inputs))
    train = TrainConfig(
        lr=config.tuning_lr,
        epochs=config.tuning_epochs,
        batch_size=config.tuning_batch_size,
        schedule=config.tuning_schedule,
        checkpoints=checkpoints,
    )
    folder.mkdir(parents=True, exist_ok=True)
    task = Task(stream, NOTHING, Alone(None))
    try:
        state, _, _ = take_steps(setup.model, task, [], train, _NO_GUARD, seed, folder, progress, inputs=inputs)
    except ExpungeError as error:
        hint = str(error)
        for theirs, ours in (("train.lr", "tuning_lr"), ("train.batch_size", "tuning_batch_size")):
            hint = hint.replace(theirs, ours)
        raise type(error)(f"fine-tuning on the forget rows: {hint}") from None
    weights.swap()
    if not all(bool(torch.isfinite(values).all()) for values in weights.others):
        raise ExpungeError(
            f"fine-tuning on the forget rows diverged within {state.global_step} steps; try a lower tuning_lr"
        )
    return weights
