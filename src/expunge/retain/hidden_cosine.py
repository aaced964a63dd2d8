"""Hidden cosine: keep the direction of retain rows' hidden states (arXiv:2502.01472)."""

from __future__ import annotations

from torch import Tensor

from expunge.losses.activations import HiddenStatesLoss, RetainStatesConfig, cosine, mean_by_row
from expunge.losses.base import View
from expunge.numerics.token import reduce_tokens
from expunge.retain.base import RetainLoss


class HiddenCosine(HiddenStatesLoss, RetainLoss):
    """`1 - cos(h, h0)` for each token, at one block; the length of the states is left free (eq. 11)."""

    class Config(RetainStatesConfig):
        """Which tokens."""

    logged = ("retain_norm", "retain_norm_ratio")

    def loss(self, view: View) -> Tensor:
        """Mean over tokens; between 0 and 2. The ratio of norms is logged."""
        tokens, hidden, original = self.site.states(view)
        self.logs = {
            "retain_norm": mean_by_row(hidden.norm(dim=-1), tokens),
            "retain_norm_ratio": mean_by_row(hidden.norm(dim=-1) / original.norm(dim=-1), tokens),
        }
        values = 1 - cosine(hidden, original)
        return reduce_tokens(values, tokens.rows, tokens.num_rows, self.config.reduction)
