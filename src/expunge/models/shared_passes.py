"""Forward passes that several interventions on one row share, and whether an architecture allows for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from expunge.models.base import LanguageModel
from expunge.numerics.token import token_logp

_FINE, _COARSE = 1e-4, 2e-2
CHECKED_TOKENS = 12
"""Length of the row that shows whether passes can be shared."""
_HEAD_BUDGET = 256
"""Positions at which the output matrix is applied at a time."""


def same_results(
    model: LanguageModel, shared: Callable[[], Sequence[Tensor]], whole: Callable[[], Sequence[Tensor]]
) -> bool:
    """Whether shared passes give the values of whole ones; if they raise anything but a lack of memory, they do not.

    Args:
        model: any model; its precision sets the tolerance.
        shared: computes the values in shared passes.
        whole: computes the same values in whole passes.
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


def decode(model: LanguageModel, ids: Tensor, start: int, cache: Any) -> Tensor:
    """Final hidden states of token ids that follow `start` cached positions: (B, S) -> (B, S, D)."""
    positions = torch.arange(start, start + ids.shape[1], device=ids.device)[None]
    output = model.decoder(input_ids=ids, position_ids=positions, past_key_values=cache, use_cache=True)
    hidden: Tensor = output.last_hidden_state
    return hidden


def label_logp(model: LanguageModel, hidden: Tensor, labels: Tensor) -> Tensor:
    """Log-probabilities of N labels after the final hidden states before them: (B, N, D), (N,) -> (B, N)."""
    parts = torch.split(hidden, max(1, _HEAD_BUDGET // len(labels)))
    logp = [token_logp(model.head(part).flatten(0, 1), labels.repeat(len(part))) for part in parts]
    return torch.cat(logp).view(len(hidden), len(labels))
