"""The parts of a decoder block whose output can be read or replaced."""

from __future__ import annotations

import re
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from expunge.core.errors import UserError
from expunge.models.base import LanguageModel
from expunge.models.feed_forward import feed_forward_outputs
from expunge.models.hooks import leaving_with
from expunge.numerics.token import widen

Site = Literal["ffn", "attention", "hidden"]

_FEED_FORWARD = ("mlp", "feed_forward", "ffn")
_ATTENTION = re.compile(r"attn|attention")
_MIXER = re.compile(r"mixer|mamba|conv|temporal")
"""Names of the module of a block that mixes tokens, in various architectures."""


def site_module(model: LanguageModel, layer: int, site: Site) -> nn.Module:
    """The part of a decoder block that a site names, where it is a single one.

    Raises:
        UserError: the block has no such part, or several, or its states are no vectors.
    """
    parts = site_modules(model, layer, site)
    if len(parts) == 1:
        return next(iter(parts.values()))
    prefix, _ = model.blocks()[layer]
    raise UserError(
        f"model: {len(parts)} '{site}' parts ({', '.join(parts)}) in {prefix}, and one is needed; use site 'hidden'"
    )


def site_modules(model: LanguageModel, layer: int, site: Site) -> dict[str, nn.Module]:
    """The parts of a decoder block that a site names; of several, as experts beside a shared one, outputs are added up.

    Where the feed-forward part has no usual name, it is the child of the block that holds every matrix by which
    feed-forward parts write.

    Raises:
        UserError: the block has no such part, or its states are no vectors.
    """
    prefix, block = model.blocks()[layer]
    children = {name: child for name, child in block.named_children() if any(True for _ in child.parameters())}
    if site == "hidden":
        check_states(model)
        return {"": block}
    if site == "ffn" and (usual := [name for name in _FEED_FORWARD if name in children]):
        found = set(usual)
    elif site == "ffn":
        found = {name.partition(".")[0] for name in feed_forward_outputs(model)[layer]} & set(children)
    else:
        wide = [name for name, child in children.items() if any(weight.ndim > 1 for weight in child.parameters())]
        found = {name for name in wide if _ATTENTION.search(name)} or {name for name in wide if _MIXER.search(name)}
    if not found:
        raise UserError(f"model: no '{site}' part in {prefix}, which has {', '.join(children)}")
    return {name: child for name, child in children.items() if name in found}


def check_states(model: LanguageModel) -> None:
    """Refuse a model whose blocks do not hand on one vector for each token.

    Raises:
        UserError: they hand on several.
    """
    if not model.layout.one_vector:
        raise UserError(
            f"model: the blocks of {type(model.base).__name__} hand on several vectors for each token, so its hidden "
            "states cannot be used; choose a recipe on probabilities, e.g. npo"
        )


def ablated(model: LanguageModel, layer: int, directions: Tensor) -> RemovableHandle:
    """Remove some directions from the output of one block: `h <- h - (h . u) u` at every token.

    Several directions are removed through an orthonormal basis of them.

    Args:
        model: any model.
        layer: index of the block.
        directions: (K, D), linearly independent, of any length.

    Returns:
        The hook, a context manager that removes it.
    """
    check_states(model)
    basis = torch.linalg.qr(widen(directions.cpu()).mT).Q.to(model.device)  # MPS has no QR

    def remove(hidden: Tensor) -> Tensor:
        with torch.autocast(model.device.type, enabled=False):
            wide = widen(hidden)
            kept: Tensor = wide - (wide @ basis.to(wide)) @ basis.to(wide).mT
        return kept.to(hidden)

    return leaving_with(model.blocks()[layer][1], remove)
