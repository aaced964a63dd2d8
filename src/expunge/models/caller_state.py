"""Restore what a Python caller passes to a call: its model, and the state of the random generators."""

from __future__ import annotations

import random
import shutil
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from expunge.core.errors import ExpungeError
from expunge.models.batches import free_memory

_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks_always_called",
)
_COPY_SHARE = 0.5
"""A copy of the weights is kept while it takes at most this share of the free memory of the machine."""


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Give the generators of Python, numpy and torch back as they were."""
    states: list[tuple[Callable[[Any], Any], Any]] = [
        (random.setstate, random.getstate()),
        (np.random.set_state, np.random.get_state()),
        (torch.set_rng_state, torch.get_rng_state()),
    ]
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        states.append((torch.cuda.set_rng_state_all, torch.cuda.get_rng_state_all()))
    try:
        yield
    finally:
        for put, state in states:
            put(state)


class _Kept(NamedTuple):
    """A module of the caller's as it was."""

    training: bool
    children: dict[str, nn.Module | None]
    hooks: dict[str, dict[Any, Any]]
    forward: Any


@contextmanager
def model_kept(model: Any, *, changed: bool = False) -> Iterator[None]:
    """Give a network back as it was: mode, hooks, gradients, what may be trained, and the dtype of its weights.

    Args:
        model: a network, or anything else, which is left alone.
        changed: the block is meant to change its weights and to add an adapter. Both are undone only if it fails; if
            there is no memory for a copy of the weights, the error says that they may have changed.
    """
    if not isinstance(model, nn.Module):
        yield
        return
    modules = {module: _kept(module) for module in model.modules()}
    parameters = {parameter: (parameter.requires_grad, parameter.dtype, parameter.grad) for parameter in _all(model)}
    buffers = [(buffer, buffer.dtype) for buffer in model.buffers()]
    attributes, checkpointing = set(vars(model)), getattr(model, "is_gradient_checkpointing", False)
    config = getattr(model, "config", None)
    use_cache = getattr(config, "use_cache", None)
    weights = _copied(model) if changed else None
    for parameter in parameters:
        parameter.grad = None  # a step would add to the caller's gradients
    adapted = {"peft_config", "_hf_peft_config_loaded"} if changed else set()
    try:
        yield
    except BaseException as error:
        if changed:
            _undo(modules, weights)
            adapted = set()
            if weights is None and isinstance(error, ExpungeError):
                raise type(error)(f"{error}; the given model's weights may have changed: load it again") from error
        raise
    finally:
        if getattr(model, "is_gradient_checkpointing", False) and not checkpointing:
            model.gradient_checkpointing_disable()  # type: ignore[operator]
        for name in set(vars(model)) - attributes - adapted:
            delattr(model, name)
        if use_cache is not None:
            config.use_cache = use_cache  # type: ignore[union-attr]
        for module, kept in modules.items():
            module.training = kept.training
            for name, hooks in kept.hooks.items():
                there = getattr(module, name)
                there.clear()
                there.update(hooks)
            if kept.forward is None:
                vars(module).pop("forward", None)
            else:
                vars(module)["forward"] = kept.forward
        for buffer, dtype in buffers:
            if buffer.dtype != dtype:
                buffer.data = buffer.data.to(dtype)
        for parameter, (trainable, dtype, gradient) in parameters.items():
            if parameter.dtype != dtype:
                parameter.data = parameter.data.to(dtype)
            parameter.requires_grad_(trainable)
            parameter.grad = gradient


@contextmanager
def lent(*models: Any, changed: Any = None) -> Iterator[None]:
    """Everything above, for a call with these models; the weights of `changed` are meant to change."""
    with random_state_kept(), _kernels_kept(), ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for model in {id(one): one for one in models if one is not changed}.values():
            stack.enter_context(model_kept(model))
        stack.enter_context(model_kept(changed, changed=True))
        yield


@contextmanager
def _kernels_kept() -> Iterator[None]:
    """Whether torch computes deterministically is as before afterwards."""
    before = torch.are_deterministic_algorithms_enabled()
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warns)


class Scratch:
    """A temporary folder that is deleted with the last result that holds it, at the latest when Python ends.

    Copies of a result share it; a result that was pickled has its numbers, but not the folder.
    """

    def __init__(self, folder: Path) -> None:
        self.delete = weakref.finalize(self, shutil.rmtree, folder, True)

    def __deepcopy__(self, _: Any) -> Scratch:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return type(None), ()


def _all(model: nn.Module) -> list[nn.Parameter]:
    return list(model.parameters())


def _kept(module: nn.Module) -> _Kept:
    hooks = {name: dict(getattr(module, name)) for name in _HOOKS if hasattr(module, name)}
    return _Kept(module.training, dict(module._modules), hooks, vars(module).get("forward"))


def _copied(model: nn.Module) -> dict[nn.Parameter, Tensor] | None:
    """The weights on the CPU, if there is room for them."""
    size = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    if size > _COPY_SHARE * free_memory(torch.device("cpu")):
        return None
    return {parameter: parameter.detach().to("cpu", copy=True) for parameter in model.parameters()}


def _undo(modules: dict[nn.Module, _Kept], weights: dict[nn.Parameter, Tensor] | None) -> None:
    """Take out what was put in, and put the old weights back."""
    for module, kept in modules.items():
        module._modules.clear()
        module._modules.update(kept.children)
    for parameter, old in (weights or {}).items():
        if parameter.dtype != old.dtype:
            parameter.data = old.to(parameter.device)
        elif not torch.equal(parameter.detach().cpu(), old):
            parameter.data.copy_(old)
