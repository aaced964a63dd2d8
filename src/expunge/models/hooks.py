"""What enters and leaves a module, seen or changed while a block of code runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


def hidden_of(output: Any) -> Tensor:
    """The hidden states among what a decoder block or a part of it gives: all of it, or the first of several."""
    hidden: Tensor = output if isinstance(output, Tensor) else output[0]
    return hidden


@contextmanager
def entering_with(module: nn.Module, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Give a module what `change` makes of its hidden states."""

    def hook(_: nn.Module, arguments: tuple[Any, ...], options: dict[str, Any]) -> tuple[tuple[Any, ...], Any]:
        if arguments:
            return (change(arguments[0]), *arguments[1:]), options
        return arguments, {**options, "hidden_states": change(options["hidden_states"])}

    handle = module.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def leaving_with(module: nn.Module, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Let a module give what `change` makes of its hidden states."""

    def hook(_: nn.Module, __: tuple[Any, ...], output: Any) -> Any:
        changed = change(hidden_of(output))
        return changed if isinstance(output, Tensor) else (changed, *output[1:])

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def leaving(module: nn.Module, look: Callable[[Tensor], None]) -> Iterator[None]:
    """Show the hidden states that leave a module; they may be changed in place."""

    def hook(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
        look(hidden_of(output))

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def skipped(block: nn.Module) -> Iterator[None]:
    """Let a block hand its hidden states through."""
    block.forward = lambda hidden_states, *_, **__: hidden_states
    try:
        yield
    finally:
        del block.forward
