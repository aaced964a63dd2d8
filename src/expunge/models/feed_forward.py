"""The output matrices of the feed-forward part of each block, found by what a block's parts do, not by names.

A part is feed-forward if its output for a token depends on that token alone, unlike attention, convolution and
recurrence. Its output matrices are those whose outputs are as wide as the hidden states: the second matrix of a plain
part, the last one of a gated part, and those of all experts, shared ones included.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from expunge.models.base import LanguageModel
from expunge.models.matrices import WeightMatrix, block_matrices

_TOKENS = 8
_KNOWN: WeakKeyDictionary[nn.Module, list[tuple[str, ...]]] = WeakKeyDictionary()


def feed_forward_outputs(model: LanguageModel) -> list[tuple[str, ...]]:
    """For each block the names, within it, of the modules or bare parameters by which its feed-forward part writes.

    Args:
        model: any model; it runs once on a few tokens, and its parts once more.
    """
    if model.base not in _KNOWN:
        _KNOWN[model.base] = list(_found(model))
    return _KNOWN[model.base]


@dataclass(frozen=True)
class _Call:
    """How a part was called, and what it gave."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any


@torch.no_grad()
def _found(model: LanguageModel) -> Iterator[tuple[str, ...]]:
    calls: dict[nn.Module, _Call] = {}

    def note(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        calls[module] = _Call(args, kwargs, output)

    ids = model.probe_ids(_TOKENS)
    blocks = model.blocks()
    matrices = block_matrices(model)
    with model.evaluating(), model.autocast():
        with ExitStack() as stack:
            for _, block in blocks:
                for module in block.modules():
                    stack.callback(module.register_forward_hook(note, with_kwargs=True).remove)
            model.network(input_ids=ids, use_cache=False)
        for prefix, block in blocks:
            hidden = _first(calls[block].output) if block in calls else None
            parts = [] if hidden is None else [path for path, _ in _parts(prefix, block, calls)]
            inside = [matrix for name, matrix in matrices.items() if name.startswith(tuple(f"{p}." for p in parts))]
            wide = [matrix for matrix in inside if hidden is not None and matrix.num_outputs == hidden.shape[-1]]
            names = dict.fromkeys(_localized_name(matrix) for matrix in _last_of_square(wide))
            yield tuple(name.removeprefix(f"{prefix}.") for name in names)


def _parts(path: str, module: nn.Module, calls: dict[nn.Module, _Call]) -> Iterator[tuple[str, nn.Module]]:
    """Parts of a block that treat each token separately; the members of a list of parts are parts too."""
    for name, child in module.named_children():
        if child not in calls:
            yield from _parts(f"{path}.{name}", child, calls)
        elif _by_token(child, calls[child]):
            yield f"{path}.{name}", child


def _by_token(part: nn.Module, call: _Call) -> bool:
    """Whether a change of the first token changes what a part gives for it, and nothing for all others."""
    args, kwargs = [*call.args], dict(call.kwargs)
    place: Any = next((place for place, value in enumerate(args) if isinstance(value, Tensor)), None)
    holder: Any = args if place is not None else kwargs
    if place is None:
        place = next((name for name, value in kwargs.items() if isinstance(value, Tensor)), None)
    if place is None or not holder[place].is_floating_point():
        return False
    changed = holder[place].clone()
    rows = changed.view(-1, changed.shape[-1])
    rows[0] += rows.std() + rows[0].flip(0)
    try:
        before = _first(part.forward(*args, **kwargs))  # what it gave in the pass may have been added to since
        holder[place] = changed
        after = _first(part.forward(*args, **kwargs))
    except Exception:  # a part's own code raises anything; one that cannot run alone is skipped
        return False
    if before is None or after is None or after.shape != before.shape:
        return False
    one, other = (output.reshape(-1, output.shape[-1]).float() for output in (before, after))
    same = len(one) == len(rows) and torch.allclose(one[1:], other[1:], rtol=1e-4, atol=1e-5)
    return same and not torch.allclose(one[0], other[0])


def _first(output: Any) -> Tensor | None:
    """The states in what a module gave."""
    found = output[0] if isinstance(output, tuple | list) and output else output
    return found if isinstance(found, Tensor) and found.ndim > 1 else None


def _localized_name(matrix: WeightMatrix) -> str:
    """The module of a layer, the parameter itself where it belongs to none."""
    return matrix.name.rpartition(".")[0] if matrix.is_layer else matrix.name


def _last_of_square(matrices: list[WeightMatrix]) -> Iterator[WeightMatrix]:
    """Where all matrices of one part are square, as with a width of the hidden states inside, the last of them."""
    for place, matrix in enumerate(matrices):
        owner = _localized_name(matrix).rpartition(".")[0]
        later = [other for other in matrices[place + 1 :] if _localized_name(other).rpartition(".")[0] == owner]
        if matrix.num_inputs != matrix.num_outputs or not later:
            yield matrix
