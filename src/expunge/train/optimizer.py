"""The optimizer: one of our own by file name, or one of transformers', with its options checked early."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from transformers import Trainer, TrainingArguments
from transformers.training_args import OptimizerNames

from expunge.core.errors import UserError, near
from expunge.core.plugins import find, names
from expunge.core.records import Frozen
from expunge.core.validation import check
from expunge.optimizers.base import Optimizer
from expunge.train.config import TrainConfig

_FOLDER = "optimizers"
_OPTIONS = "train.optimizer_options"


class _Adam(Frozen):
    """Options of the Adam family that transformers reads from separate fields."""

    eps: float = 1e-8
    betas: tuple[float, float] = (0.9, 0.999)


def own_optimizer(config: TrainConfig) -> tuple[type[Optimizer], dict[str, Any]] | None:
    """Class and arguments of one of our own optimizers, or of a user's; None if the name is one of transformers'.

    Raises:
        UserError: an option that it does not have.
    """
    if config.optimizer not in names(_FOLDER) and ":" not in config.optimizer:
        return None
    kind = find(_FOLDER, config.optimizer, Optimizer)  # type: ignore[type-abstract]
    return kind, {"lr": config.lr, "config": check(kind.Config, config.optimizer_options or {}, _OPTIONS)}


def optimizer_arguments(config: TrainConfig) -> dict[str, Any]:
    """The fields of TrainingArguments that choose and set one of transformers' optimizers; none for our own.

    transformers reads `eps` and `betas` of the Adam family from fields of their own, and all else from one string.
    """
    if own_optimizer(config):
        return {}
    options = dict(config.optimizer_options or {})
    adam = check(_Adam, {key: options[key] for key in _Adam.model_fields if key in options}, _OPTIONS)
    options.pop("betas", None)
    return {
        "optim": config.optimizer,
        "adam_epsilon": adam.eps,
        "adam_beta1": adam.betas[0],
        "adam_beta2": adam.betas[1],
        "optim_args": ",".join(f"{key}={value}" for key, value in options.items()),
    }


def check_optimizer(config: TrainConfig) -> None:
    """Refuse an unknown optimizer, or options that would not reach it.

    Raises:
        UserError: any of them.
    """
    known = [name.value for name in OptimizerNames]
    if own_optimizer(config):
        return
    if config.optimizer not in known:
        raise UserError(f"train.optimizer: no '{config.optimizer}'{near(config.optimizer, [*known, *names(_FOLDER)])}")
    if config.optimizer_options:
        _try_options(config, config.optimizer_options)
    else:
        _check_installed(config)


def _check_installed(config: TrainConfig) -> None:
    """Refuse an optimizer whose package is missing; other requirements depend on the model."""
    arguments = TrainingArguments("unused", use_cpu=True, report_to="none", **optimizer_arguments(config))
    try:
        Trainer.get_optimizer_cls_and_kwargs(arguments)
    except ImportError as error:
        raise UserError(f"train.optimizer: {config.optimizer}: {str(error).splitlines()[0]}") from None
    except ValueError as error:  # some want the model, which is not there yet
        if "install" in str(error):
            raise UserError(f"train.optimizer: {config.optimizer}: {str(error).splitlines()[0]}") from None


def _try_options(config: TrainConfig, options: dict[str, Any]) -> None:
    """Build the optimizer for one number: transformers drops unknown options, torch refuses bad values."""
    arguments = TrainingArguments("unused", use_cpu=True, report_to="none", **optimizer_arguments(config))
    try:
        kind, found = Trainer.get_optimizer_cls_and_kwargs(arguments)
        kind([torch.nn.Parameter(torch.zeros(1))], **found)
    except (ImportError, TypeError, ValueError) as error:
        raise UserError(f"{_OPTIONS}: {config.optimizer}: {str(error).splitlines()[0]}") from None
    known = {*inspect.signature(kind).parameters}
    for key, value in options.items():
        if found.get(key) != (tuple(value) if isinstance(value, list) else value):
            raise UserError(
                f"{_OPTIONS}: transformers passes no '{key}' to {config.optimizer}{near(key, known - {key})}"
            )
