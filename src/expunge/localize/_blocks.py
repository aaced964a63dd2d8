"""Windows of neighbouring blocks, which localizers choose."""

from __future__ import annotations

from collections.abc import Sequence

from expunge.core.errors import UserError


def best_window(values: Sequence[float], width: int, within: range | None = None) -> range:
    """The window of `width` neighbouring blocks with the largest sum; the lowest of equal ones.

    Args:
        values: one per block.
        width: of the window; if there are fewer blocks, the window holds all of them.
        within: the blocks to search. Default: all.
    """
    within = within or range(len(values))
    width = min(width, len(within))
    starts = range(within.start, within.stop - width + 1)
    best = max(starts, key=lambda start: (sum(values[start : start + width]), -start))
    return range(best, best + width)


def window_below(top: int, width: int) -> range:
    """`width` neighbouring blocks with `top` as the highest; fewer if the model begins earlier."""
    return range(max(0, top - width + 1), top + 1)


def share_of_depth(depth: tuple[float, float], num_layers: int) -> range:
    """Blocks from one share of the depth up to another; at least one.

    Raises:
        UserError: the shares are not ascending numbers in [0, 1].
    """
    start, end = depth
    if not 0 <= start < end <= 1:
        raise UserError(f"localize.depth: expected two ascending shares from 0 to 1; got {start}, {end}")
    first = min(round(start * num_layers), num_layers - 1)
    return range(first, max(round(end * num_layers), first + 1))
