"""Whether runs that share passes are right for an architecture: a comparison with whole passes on a few tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from expunge.models.base import LanguageModel

_FINE, _COARSE = 1e-4, 2e-2


def same_results(
    model: LanguageModel, shared: Callable[[], Sequence[Tensor]], whole: Callable[[], Sequence[Tensor]]
) -> bool:
    """Whether two ways to compute the same values agree; a way that raises anything but a lack of memory does not.

    Args:
        model: whose arithmetic it is.
        shared: the fast way.
        whole: the plain one.
    """
    expected = whole()
    try:
        found = shared()
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception:  # architectures raise anything where shapes or arguments are not what they expect
        return False
    coarse = model.compute != torch.float32 or any(weight.itemsize < 4 for weight in model.base.parameters())
    close = _COARSE if coarse else _FINE
    return all(torch.allclose(one, other, rtol=close, atol=close) for one, other in zip(found, expected, strict=True))


def ends(count: int) -> list[range]:
    """The lowest and the highest two of so many blocks."""
    return [range(count)] if count <= 4 else [range(2), range(count - 2, count)]
