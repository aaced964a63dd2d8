"""Inputs of each matrix of a mixture of experts, token by token."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

UseInputs = Callable[[nn.Parameter, int, Tensor, Tensor], None]
"""(stack of matrices, expert, (N, in) its inputs, (N,) places of their tokens in the flattened batch)."""

_NAME = "expunge_watched"


def shows_inputs(module: nn.Module) -> bool:
    """Whether a module computes its experts through transformers' interface for them."""
    return all(hasattr(module, name) for name in ("has_gate", "has_bias", "is_transposed", "num_experts", "config"))


@contextmanager
def watched_experts(modules: Collection[nn.Module], use: UseInputs) -> Iterator[None]:
    """Let experts modules compute one expert after another within this block and call `use` with the inputs of each.

    Args:
        modules: which, each with `shows_inputs`.
        use: called for every matrix and expert that gets any token.
    """

    def forward(self: Any, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        return _forward(self, hidden_states, top_k_index, top_k_weights, use)

    configs: list[Any] = list({id(module.config): module.config for module in modules}.values())
    before = [config._experts_implementation for config in configs]
    ALL_EXPERTS_FUNCTIONS.register(_NAME, forward)
    try:
        for config in configs:
            config._experts_implementation = _NAME
        yield
    finally:
        for config, implementation in zip(configs, before, strict=True):
            config._experts_implementation = implementation


def _forward(experts: Any, hidden: Tensor, index: Tensor, weights: Tensor, use: UseInputs) -> Tensor:
    """The experts' sum for each token: (N, D), (N, k), (N, k) -> (N, D)."""
    total = torch.zeros_like(hidden)
    first = "gate_up_proj" if experts.has_gate else "up_proj"
    for expert in range(experts.num_experts):
        tokens, place = torch.where(index == expert)
        if not len(tokens):
            continue
        states = _product(experts, first, expert, hidden[tokens], tokens, use)
        inner = experts._apply_gate(states) if experts.has_gate else experts.act_fn(states)
        states = _product(experts, "down_proj", expert, inner, tokens, use)
        if getattr(experts, "has_post_expert_norm", False):
            states = experts.post_expert_norm(states)
        total.index_add_(0, tokens, (states * weights[tokens, place, None]).to(total.dtype))
    return total


def _product(experts: Any, name: str, expert: int, inputs: Tensor, tokens: Tensor, use: UseInputs) -> Tensor:
    stack = getattr(experts, name)
    use(stack, expert, inputs, tokens)
    weight = stack[expert].mT if experts.is_transposed else stack[expert]
    bias = getattr(experts, f"{name}_bias")[expert] if experts.has_bias else None
    return nn.functional.linear(inputs.to(weight.dtype), weight, bias)
