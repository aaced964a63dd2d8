"""The disk space that a training run needs, so that a full disk is refused before any work."""

from __future__ import annotations

from pathlib import Path

from expunge.combine.base import Combine
from expunge.models.base import LanguageModel
from expunge.models.source import files_to_copy, weight_files
from expunge.train.config import TrainConfig
from expunge.train.job import Method

_MOMENTS = {"sgd": 0, "adafactor": 1}
"""Numbers that an optimizer keeps for each trained weight; the Adam family keeps two."""
_OWN_MOMENTS = 6
"""The most that a combination rule's own optimizer keeps: two Adams, and a weight in two parts."""
_KEPT = 2
"""Checkpoints at a time: the older one goes before a third is written."""


def bytes_written(
    model: LanguageModel, train: TrainConfig, *, guarded: bool = False, method: Method | None = None
) -> int:
    """Peak disk usage in bytes: checkpoints, the guard's weights and the saved model.

    Args:
        model: its trainable weights chosen.
        train: which optimizer, and whether and how often checkpoints are written.
        guarded: whether the guard keeps the last good weights.
        method: which may bring an optimizer of its own, and fine-tune the model first; the checkpoints of that stay as
            long as the run lasts.
    """
    own_optimizer = method is not None and type(method.combine).optimizer is not Combine.optimizer
    tunes = method is not None and method.tunes
    trained = sum(weight.numel() for weight in model.trainable())
    held = sum(weight.numel() * weight.element_size() for weight in model.trainable())
    whole = sum(weight.numel() * weight.element_size() for weight in model.network.parameters())
    moments = _OWN_MOMENTS if own_optimizer else _MOMENTS.get(train.optimizer, 2)
    checkpoint = (held if model.is_adapted else whole) + 4 * moments * trained
    kept = _KEPT * (train.takes_steps + tunes) if train.checkpoints else 0
    guard = 2 * held if guarded else 0  # the new file is whole before it takes the place of the old one
    return kept * checkpoint + guard + _saved(model)


def saved_by_steps(model: LanguageModel, adapter: bool, steps: int) -> int:
    """Disk usage of the models of a sequence of runs, each of which starts from the one before.

    Args:
        model: that the first run starts from, as it was loaded.
        adapter: whether the runs train an adapter. The first is saved beside the base that it names; those of later
            runs become part of the weights, since no published base has the earlier ones.
        steps: how many models are saved.
    """
    return (steps - adapter) * _saved(model)


def _saved(model: LanguageModel) -> int:
    """The model folder: an adapter, a copy of the source folder, or all weights in their stored dtypes."""
    source = model.origin.folder
    copied: list[Path] = []
    if source is not None and source.is_dir():
        copied = [source / name for name in files_to_copy(source)]
    if model.is_adapted:
        weights = sum(weight.numel() * weight.element_size() for weight in model.trainable())
    elif source is not None and source.is_dir() and model.origin.same_layout:
        weights = sum(path.stat().st_size for path in weight_files(source))
    else:
        weights = sum(weight.numel() * model.stored_as(name).itemsize for name, weight in model.base.named_parameters())
    return weights + sum(path.stat().st_size for path in copied)
