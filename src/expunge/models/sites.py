"""The parts of a decoder block whose output can be looked at or put back."""

from __future__ import annotations

from typing import Literal

from torch import nn

from expunge.core.errors import UserError

Site = Literal["ffn", "attention", "hidden"]

_MODULES: dict[Site, tuple[str, ...]] = {
    "ffn": ("mlp", "feed_forward", "ffn"),
    "attention": ("self_attn", "attn", "attention"),
    "hidden": ("",),
}
"""What architectures call, within a block, the module whose output is meant; the block itself for `hidden`."""


def site_module(prefix: str, block: nn.Module, site: Site) -> nn.Module:
    """The part of a decoder block that a site names.

    Raises:
        UserError: the block has no such part.
    """
    children = dict(block.named_children())
    for name in _MODULES[site]:
        if not name:
            return block
        if name in children:
            return children[name]
    raise UserError(f"model: no '{site}' part in {prefix}, which has {', '.join(children)}")
