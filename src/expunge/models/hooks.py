"""Hooks that read or change the inputs and outputs of a module."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


def entered_states(arguments: Sequence[Any], options: Mapping[str, Any]) -> Tensor | None:
    """The hidden states that a decoder block or a part of it is called with."""
    name = _states_name(options) if not arguments else None
    found = arguments[0] if arguments else options.get(name or "")
    return found if isinstance(found, Tensor) else None


def given_states(output: Any) -> Tensor | None:
    """The hidden states in the output of a decoder block or of a part of it: all of it, or the first of several."""
    if isinstance(output, tuple | list):
        output = output[0] if output else None
    return output if isinstance(output, Tensor) else None


def hidden_of(output: Any) -> Tensor:
    """The hidden states in an output that must hold some."""
    hidden = given_states(output)
    assert hidden is not None, f"no hidden states in {type(output).__name__}"
    return hidden


def _states_name(options: Mapping[str, Any]) -> str | None:
    """Which keyword holds the hidden states."""
    if isinstance(options.get("hidden_states"), Tensor):
        return "hidden_states"
    return next((name for name, value in options.items() if isinstance(value, Tensor)), None)


def entering_with(module: nn.Module, change: Callable[[Tensor], Tensor]) -> RemovableHandle:
    """Replace the hidden states that a module is called with by `change` of them.

    Returns:
        The hook, a context manager that removes it.
    """

    def hook(_: nn.Module, arguments: tuple[Any, ...], options: dict[str, Any]) -> tuple[tuple[Any, ...], Any]:
        if arguments:
            return (change(arguments[0]), *arguments[1:]), options
        name = _states_name(options)
        assert name is not None, f"no hidden states among {', '.join(options)}"
        return arguments, {**options, name: change(options[name])}

    return module.register_forward_pre_hook(hook, with_kwargs=True)


def leaving_with(module: nn.Module, change: Callable[[Tensor], Tensor]) -> RemovableHandle:
    """Replace the hidden states that a module returns by `change` of them; a context manager, as `entering_with`."""

    def hook(_: nn.Module, __: tuple[Any, ...], output: Any) -> Any:
        changed = change(hidden_of(output))
        return changed if isinstance(output, Tensor) else type(output)((changed, *output[1:]))

    return module.register_forward_hook(hook)


def leaving(module: nn.Module, use: Callable[[Tensor], None]) -> RemovableHandle:
    """Call `use` with the hidden states that a module returns, which it may change in place; a context manager."""

    def hook(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
        use(hidden_of(output))

    return module.register_forward_hook(hook)


@contextmanager
def replaced_forward(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Replace a module's forward within this block of code; the previous one, e.g. accelerate's hook, is restored."""
    before = module.__dict__.get("forward")
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
        if before is not None:
            module.forward = before


def hand_through(extras: int | None, hidden: Tensor | None = None) -> Callable[..., Any]:
    """A forward that computes nothing.

    Args:
        extras: number of values that the block returns besides its states; None if it returns no tuple.
        hidden: the states to return. Default: those that it is called with.
    """

    def forward(*arguments: Any, **options: Any) -> Any:
        states = entered_states(arguments, options) if hidden is None else hidden
        return states if extras is None else (states, *[None] * extras)

    return forward
