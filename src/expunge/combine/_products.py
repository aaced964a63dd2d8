"""Inner products and cosines of forget and retain gradients, computed on their device without waiting for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from expunge.models.precision import float64


@dataclass(frozen=True)
class Products:
    """Inner products of P pairs of a forget gradient F and a retain gradient R: the rules need no more of them."""

    forget: Tensor
    """(P,) <F, F>, float64."""
    retain: Tensor
    """(P,) <R, R>."""
    dot: Tensor
    """(P,) <F, R>."""

    @classmethod
    def of(cls, pairs: Sequence[tuple[Tensor | None, Tensor | None]]) -> Products:
        """Of pairs of gradients; None counts as zero."""
        known = next((one for pair in pairs for one in pair if one is not None), None)
        zero = torch.zeros(()) if known is None else known.new_zeros(())

        def dots(products: Sequence[tuple[Tensor | None, Tensor | None]]) -> Tensor:
            found = [
                zero if one is None or other is None else torch.dot(one.flatten(), other.flatten())
                for one, other in products
            ]
            return float64(torch.stack(found))

        return cls(dots([(one, one) for one, _ in pairs]), dots([(other, other) for _, other in pairs]), dots(pairs))

    def total(self) -> Products:
        """Of all pairs as one: P = 1."""
        return Products(*(values.sum(0, keepdim=True) for values in (self.forget, self.retain, self.dot)))

    @property
    def conflict(self) -> Tensor:
        """(P,) whether the cosine is negative; never where one of them is zero."""
        return (self.dot < 0) & (self.forget > 0) & (self.retain > 0)

    @property
    def cosine(self) -> Tensor:
        """(P,) of F and R; 0 where one of them is zero."""
        scale = self.forget.sqrt() * self.retain.sqrt()
        return torch.where(scale == 0, 0.0, self.dot / scale)


def conflict_logs(products: Products, deciding: Products | None = None) -> dict[str, Tensor]:
    """Share of tensors in conflict and mean cosine, over the tensors that both losses reach; NaN if there is none.

    Args:
        products: of the tensors.
        deciding: those by which a rule judges a conflict, where they are not the tensor's own; (P,) or (1,).
    """
    met = (products.forget != 0) & (products.retain != 0)
    conflict = (deciding or products).conflict & met
    return {
        "gradient_conflict": float64(conflict.sum()) / met.sum(),
        "gradient_cosine": torch.where(met, products.cosine, 0.0).sum() / met.sum(),
    }
