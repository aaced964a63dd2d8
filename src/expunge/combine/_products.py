"""How a forget and a retain gradient lie to each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Products:
    """Inner products of a forget gradient F and a retain gradient R: the rule needs no more of them."""

    forget: float
    """<F, F>."""
    retain: float
    """<R, R>."""
    dot: float
    """<F, R>."""

    @classmethod
    def of(cls, forget: Tensor | None, retain: Tensor | None) -> Products:
        """Of one tensor; a gradient that is None is zero."""
        return cls(_dot(forget, forget), _dot(retain, retain), _dot(forget, retain))

    @classmethod
    def total(cls, products: Sequence[Products]) -> Products:
        """Of all tensors as one vector."""
        return cls(*(sum(getattr(one, name) for one in products) for name in ("forget", "retain", "dot")))

    @property
    def conflict(self) -> bool:
        """Whether the cosine is negative; never where one of them is zero."""
        return self.dot < 0 and self.forget > 0 and self.retain > 0

    @property
    def cosine(self) -> float:
        """Of F and R; 0 where one of them is zero."""
        scale = math.sqrt(self.forget) * math.sqrt(self.retain)
        return self.dot / scale if scale else 0.0


def conflict_logs(products: Sequence[Products], deciding: Sequence[Products] | None = None) -> dict[str, float]:
    """Share of tensors in conflict and mean cosine, over the tensors that both losses reach.

    Args:
        products: one for each tensor.
        deciding: those by which a rule judges a conflict, where they are not the tensor's own.
    """
    met = [(own, judge) for own, judge in zip(products, deciding or products, strict=True) if own.forget and own.retain]
    if not met:
        return {}
    return {
        "gradient_conflict": sum(judge.conflict for _, judge in met) / len(met),
        "gradient_cosine": sum(own.cosine for own, _ in met) / len(met),
    }


def _dot(first: Tensor | None, second: Tensor | None) -> float:
    if first is None or second is None:
        return 0.0
    return float(torch.dot(first.flatten(), second.flatten()))
