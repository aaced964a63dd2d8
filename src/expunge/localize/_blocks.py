"""What localizers share: a window of blocks, and the weights of named modules in them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from expunge.core.errors import UserError, near
from expunge.models.base import LanguageModel

_EQUIVALENT = (("mlp.down_proj", "mlp.c_proj", "mlp.dense_4h_to_h", "mlp.fc2"),)
"""Names that architectures give to one thing: the second matrix of the feed-forward part."""


def best_window(values: Sequence[float], width: int, within: range | None = None) -> range:
    """The run of `width` neighbouring blocks with the largest sum; of equal ones the lowest.

    Args:
        values: one for each block.
        width: of the window; where there are fewer blocks they are one window.
        within: the blocks among which it lies; None: all.
    """
    within = within or range(len(values))
    width = min(width, len(within))
    starts = range(within.start, within.stop - width + 1)
    best = max(starts, key=lambda start: (sum(values[start : start + width]), -start))
    return range(best, best + width)


def window_below(top: int, width: int) -> range:
    """`width` neighbouring blocks, the highest of them `top`; fewer where the model begins."""
    return range(max(0, top - width + 1), top + 1)


def share_of_depth(depth: tuple[float, float], num_layers: int) -> range:
    """Blocks from one share of the depth up to another; at least one.

    Raises:
        UserError: shares that are none.
    """
    start, end = depth
    if not 0 <= start < end <= 1:
        raise UserError(f"localize.depth: two shares from 0 to 1, the first smaller; got {start}, {end}")
    first = min(round(start * num_layers), num_layers - 1)
    return range(first, max(round(end * num_layers), first + 1))


def parameter_names(model: LanguageModel, layers: Iterable[int], modules: Sequence[str]) -> tuple[str, ...]:
    """Names of the parameters of some modules in some blocks, in the model's order.

    Args:
        model: any model.
        layers: block indices.
        modules: module names within a block, e.g. `mlp.down_proj`, which also means the same matrix under the name
            that GPT-2 or GPT-NeoX gives it; none: whole blocks.

    Raises:
        UserError: a chosen block has no module of that name.
    """
    blocks = model.blocks()
    names = []
    for index in layers:
        prefix, block = blocks[index]
        parameters = [name for name, _ in block.named_parameters()]
        wanted = [_called(module, parameters, prefix) for module in modules] or [""]
        names += [f"{prefix}.{name}" for name in parameters if any(_within(name, module) for module in wanted)]
    return tuple(names)


def _called(module: str, parameters: Sequence[str], prefix: str) -> str:
    """What this architecture calls a module."""
    family: tuple[str, ...] = next((family for family in _EQUIVALENT if module in family), ())
    for candidate in (module, *family):
        if any(_within(name, candidate) for name in parameters):
            return candidate
    known = {name.rpartition(".")[0] for name in parameters}
    raise UserError(f"localize.modules: no module '{module}' in {prefix}{near(module, known)}")


def _within(parameter: str, module: str) -> bool:
    return not module or parameter.startswith(f"{module}.")
