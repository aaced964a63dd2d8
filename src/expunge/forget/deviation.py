"""Deviation: turn the hidden states of forget rows away from where they were; a reconstruction (arXiv:2602.19275)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from expunge.core.errors import UserError
from expunge.data.generator import named_generator
from expunge.forget.base import ForgetLoss
from expunge.losses.activations import HiddenStatesLoss, SiteLossConfig, cosine
from expunge.losses.base import Project, Setup, View
from expunge.models.base import LanguageModel
from expunge.models.matrices import block_matrices
from expunge.numerics.token import reduce_tokens

DeviationForm = Literal["npo", "linear", "hinge"]


class Deviation(HiddenStatesLoss, ForgetLoss):
    """A function of `d = 1 - cos(h, h0)`, the cosine complement between a token's states now and originally.

    A reconstruction: of KUDA's loss only the cosine complement, an inverse temperature and the wish that states leave
    their original place are known here. The form, the place and the tokens are our choices: the output of the highest
    trained block, or with `site = "ffn"` and `layer = "trained"` what the feed-forward parts of all of them write.

    At the original weights the cosine is at its maximum, so that every form's gradient is zero there and training would
    start from rounding noise. The kick takes the weights a little off; it is drawn by the run's seed, on which results
    therefore depend. Bounds on the cosine, on drift or on the weights are the guard's: `stop_below` and `stop_above`.
    """

    class Config(SiteLossConfig):
        """Which function of the cosine, and the kick."""

        form: DeviationForm = Field(
            "npo",
            description="npo: -2/beta log sigmoid(beta d), which fades; linear: -d; hinge: until target_cosine is met",
        )
        beta: float = Field(1.0, gt=0, description="With form npo: inverse temperature; larger fades earlier")
        target_cosine: float = Field(
            0.0, ge=-1, lt=1, description="With form hinge: 0 stops where states are orthogonal"
        )
        skip_first: bool = Field(
            True, description="Leave out position 0, whose huge state says nothing of the row; not with tokens = answer"
        )
        kick: float = Field(
            1e-3, ge=0, description="First random change of each matrix, relative to its norm, where allowed; 0: none"
        )

    logged = ("forget_cosine",)

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.first_position = int(config.skip_first)

    def prepare(self, setup: Setup) -> None:
        """Say which block's states must be kept.

        Raises:
            UserError: no such layer or none that training can move, or an adapter, which the kick cannot move.
        """
        if hasattr(setup.model.network, "peft_config"):
            raise UserError(
                "forget: deviation perturbs base weights directly, and its gradient is zero at LoRA initialisation; "
                'set model.adapter = "none"'
            )
        super().prepare(setup)
        self._seed = setup.seed

    @torch.no_grad()
    def start(self, model: LanguageModel, project: Project) -> None:
        """`W += kick ||W|| Z / ||Z||` for every trained matrix W, with Z the allowed part of a Gaussian draw.

        Each matrix of a stack of experts is kicked by its own norm.
        """
        if not self.config.kick:
            return
        matrices = block_matrices(model)
        for name, weight in model.network.named_parameters():
            if weight.requires_grad and (weight.ndim == 2 or name in matrices):
                draw = torch.randn(weight.shape, generator=named_generator(f"{self._seed}/kick/{name}"))
                allowed = project(weight, draw.to(weight))
                num = matrices[name].num if name in matrices else 1
                for own, change in zip(weight.view(num, -1), allowed.reshape(num, -1), strict=True):
                    length = change.norm()
                    if length > 0:
                        own += self.config.kick * own.norm() / length * change

    def loss(self, view: View) -> Tensor:
        """Mean over tokens of the form's value, reduced by `reduction`; the mean cosine is logged."""
        tokens, hidden, original = self.site.states(view, self.first_position)
        similarity = cosine(hidden, original)
        mean = reduce_tokens(similarity.detach(), tokens.rows, tokens.num_rows, "seq_mean")
        self.logs = {"forget_cosine": mean}
        return reduce_tokens(self.values(similarity), tokens.rows, tokens.num_rows, self.config.reduction)

    def values(self, similarity: Tensor) -> Tensor:
        """Cosines (M,) -> (M,) values to minimise."""
        return _FORMS[self.config.form](similarity, self.config)


def _npo(similarity: Tensor, config: Deviation.Config) -> Tensor:
    """NPO's function with `-d` instead of a log-ratio: slope -1 in d at d = 0, then fading."""
    return -2 / config.beta * logsigmoid(config.beta * (1 - similarity))


_FORMS: dict[DeviationForm, Callable[[Tensor, Deviation.Config], Tensor]] = {
    "npo": _npo,
    "linear": lambda similarity, _: similarity - 1,
    "hinge": lambda similarity, config: (similarity - config.target_cosine).relu(),
}
