"""What localizers share: a window of blocks, and the weights of named modules in them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from expunge.core.errors import UserError, near
from expunge.models.base import LanguageModel
from expunge.models.feed_forward import feed_forward_outputs

_FEED_FORWARD = ("mlp.down_proj", "mlp.c_proj", "mlp.dense_4h_to_h", "mlp.fc2")
"""Names by which the matrices are meant by which the feed-forward part writes, whatever the architecture calls them."""


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
        modules: names within a block of modules or of single parameters, e.g. `mlp.experts.down_proj`. `mlp.down_proj`
            where there is none of that name means the matrices by which the feed-forward part writes, those of all
            experts among them; none: whole blocks.

    Raises:
        UserError: a chosen block has no module of that name.
    """
    blocks = model.blocks()
    names = []
    for index in layers:
        prefix, block = blocks[index]
        parameters = [name for name, _ in block.named_parameters()]
        wanted = [name for module in modules for name in _called(model, index, module, parameters)] or [""]
        names += [f"{prefix}.{name}" for name in parameters if any(_within(name, module) for module in wanted)]
    return tuple(names)


def _called(model: LanguageModel, index: int, module: str, parameters: Sequence[str]) -> Sequence[str]:
    """What a block of this architecture calls a module."""
    if any(_within(name, module) for name in parameters):
        return [module]
    if module in _FEED_FORWARD and (found := feed_forward_outputs(model)[index]):
        return found
    known = {name.rpartition(".")[0] for name in parameters} | {*parameters} - {""}
    raise UserError(f"localize.modules: no module '{module}' in {model.blocks()[index][0]}{near(module, known)}")


def _within(parameter: str, module: str) -> bool:
    return not module or parameter == module or parameter.startswith(f"{module}.")
