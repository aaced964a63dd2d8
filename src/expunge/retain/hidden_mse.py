"""Hidden MSE: keep the hidden states of retain rows where they were (arXiv:2403.03218)."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from expunge.losses.activations import HiddenStatesLoss, RetainStatesConfig, cosine, mean_by_row, row_norms
from expunge.losses.base import Setup, View
from expunge.numerics.token import reduce_tokens
from expunge.retain.base import RetainLoss


class HiddenMSE(HiddenStatesLoss, RetainLoss):
    """Squared distance of each token's hidden state to that of the original model, at one block.

    Near zero at the start, with a gradient that is near zero too: up to float32 rounding, since the original states
    were computed in batches of another shape.
    """

    class Config(RetainStatesConfig):
        """Which tokens, and in what unit."""

        normalise: bool = Field(
            True, description="Divide by the mean squared norm of the original states; false: by their width"
        )

    logged = ("retain_norm", "retain_cosine")

    def prepare(self, setup: Setup) -> None:
        """Also measure the unit of the distance."""
        super().prepare(setup)
        width = int(setup.model.base.config.get_text_config().hidden_size)
        self._unit = float(row_norms(setup, self.site)[:, 1].mean()) if self.config.normalise else float(width)

    def loss(self, view: View) -> Tensor:
        """Mean over tokens of `||h - h0||^2`, in squared norms or over the width; norm and cosine are logged."""
        tokens, hidden, original = self.site.states(view)
        self.logs = {
            "retain_norm": mean_by_row(hidden.norm(dim=-1), tokens),
            "retain_cosine": mean_by_row(cosine(hidden, original), tokens),
        }
        values = (hidden - original).square().sum(-1) / self._unit
        return reduce_tokens(values, tokens.rows, tokens.num_rows, self.config.reduction)
