"""FALCON: turn hidden states from where they were towards an offset direction (arXiv:2502.01472)."""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import softplus

from expunge.core.provenance import sha256_text
from expunge.data.batch import collate
from expunge.forget._offset import code_offset, paper_offset, principal
from expunge.forget.base import ForgetLoss
from expunge.losses.activations import HiddenLossConfig, Site, Tokens, cosine
from expunge.losses.base import Setup, View
from expunge.losses.token import reduce_tokens
from expunge.models.forward import Needs
from expunge.models.partial import BlockStates

_POV_TOKENS = 16384
"""Tokens of the forget rows that a run's direction is made from: 8 batches of the paper's size."""


class Contrast(ForgetLoss):
    """InfoNCE on the output of one block: the anchor is a token's state now, the positive a fixed direction p.

    The negative is the original model's state of the same token. Only directions count: the gradient is orthogonal to
    the state, whose length is free to grow (logged as `contrast_norm_ratio`) unless `norm_weight` holds it.

    p is a Principal Offset Vector. By the paper's formula it is random, less the principal subspace of the original
    states (with `tokens = "all"` an opening token of huge norm can be all of it); the published code computes something
    else, which in wide models lies mostly within that subspace, and one for each batch, from another batch than the
    one it is used on. Logged of p: `pov_energy`, its share within the subspace of `pov_dimensions` dimensions, and
    `pov_cos` and `pov_abs_cos`, the mean of its cosines with the original states and of their absolute values.
    """

    class Config(HiddenLossConfig):
        """Options of the contrastive loss and of its direction."""

        temperature: float = Field(0.7, gt=0, description="Of the contrast (tau); lower lets go of a token sooner")
        negatives: int = Field(
            1, ge=1, description="Original states that a token is turned from: its own, then others of its row (Z)"
        )
        norm_weight: float = Field(
            0.0, ge=0, description="Weight of the squared relative change of a state's norm; 0: norms are free"
        )
        pov: Literal["paper", "code"] = Field(
            "paper", description="The direction by the paper's formula, or by its code: the two differ in kind"
        )
        per: Literal["run", "batch"] = Field(
            "run",
            description="One direction for the run, or for each batch one from its own rows: slow in wide models, and "
            "the loss of a row then depends on its batch",
        )
        explained_variance: float = Field(
            0.95,
            gt=0,
            le=1,
            description="Paper: the principal subspace holds this share of the original states' energy, "
            "in at most half of the dimensions",
        )
        weight: float = Field(
            1.0, ge=0, description="Paper: how much of the principal subspace is taken out of the direction (w); 1: all"
        )

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._direction: Tensor | None = None
        self._audit: dict[str, float] = {}

    def prepare(self, setup: Setup) -> None:
        """Draw what is random of the direction, and make it from the original states of the forget rows.

        Raises:
            UserError: no such layer, or one that no trained weight can move.
        """
        self._site = Site(self.config, setup, "forget")
        self.needs = Needs(reference_hidden=(self._site.layer,))
        width = setup.model.base.config.get_text_config().hidden_size
        shape = (width,) if self.config.pov == "paper" else (width, width)
        self._random = torch.randn(shape, generator=_generator(setup, "pov"))
        if self.config.per == "run":
            self._direction = self._offset(self._original_states(setup, width))

    def loss(self, view: View) -> Tensor:
        """Eq. 9-10: mean of `-log(e^(cos(h, p) / tau) / (e^(cos(h, p) / tau) + sum_z e^(cos(h, h0_z) / tau)))`.

        With one negative that is `softplus((cos(h, h0) - cos(h, p)) / tau)`. Reduced by `reduction`.
        """
        tokens, states, original = self._site.states(view)
        direction = self._offset(original.cpu()) if self._direction is None else self._direction
        towards = cosine(states, direction.to(states))
        away = torch.stack([cosine(states, original[other]) for other in negatives(tokens, self.config.negatives)])
        values = info_nce(towards, away, self.config.temperature)
        ratio = states.norm(dim=-1) / original.norm(dim=-1)
        if self.config.norm_weight:
            values = values + self.config.norm_weight * (ratio - 1) ** 2
        self.logs = {
            "contrast_cos_pov": float(towards.detach().mean()),
            "contrast_cos_original": float(away[0].detach().mean()),
            "contrast_norm_ratio": float(ratio.detach().mean()),
            **self._audit,
        }
        return reduce_tokens(values, tokens.rows, tokens.num_rows, self.config.reduction)

    def tensors(self) -> dict[str, Tensor]:
        """The run's direction, (D,)."""
        return {} if self._direction is None else {"principal_offset": self._direction}

    def _original_states(self, setup: Setup, width: int) -> Tensor:
        """(M, D) states of a seeded sample of rows, at the tokens that count; whole rows, until they are enough."""
        order = torch.randperm(len(setup.sequences), generator=_generator(setup, "pov/rows")).tolist()
        ends = torch.tensor([len(setup.sequences[index].ids) for index in order]).cumsum(0)
        chosen = [setup.sequences[index] for index in order[: int((ends < _POV_TOKENS).sum()) + 1]]
        kept = BlockStates(setup.model, self._site.layer + 1, chosen)
        batches = [collate([sequence], [index]) for index, sequence in enumerate(chosen)]
        states = [self._site.tokens(batch).of(kept.batch(batch.indices).cpu()) for batch in batches]
        return torch.cat([torch.zeros(0, width), *states])

    @torch.no_grad()
    def _offset(self, original: Tensor) -> Tensor:
        """(D,) direction from (M, D) original states, with an account of what the two have in common."""
        found = principal(original)
        subspace = found.first(min(found.num_explaining(self.config.explained_variance), original.shape[1] // 2))
        if self.config.pov == "paper":
            direction = paper_offset(self._random, subspace, self.config.weight)
        else:
            direction = code_offset(found, self._random)
        cosines = cosine(original, direction)
        self._audit = {
            "pov_dimensions": float(len(subspace.energies)),
            "pov_energy": subspace.energy_of(direction),
            "pov_cos": float(cosines.mean()),
            "pov_abs_cos": float(cosines.abs().mean()),
        }
        return direction


def info_nce(towards: Tensor, away: Tensor, temperature: float) -> Tensor:
    """Contrast of one positive with Z negatives, from cosines: (M,), (Z, M) -> (M,) in nats."""
    return softplus(torch.logsumexp(away / temperature, dim=0) - towards / temperature)


def negatives(tokens: Tokens, count: int) -> list[Tensor]:
    """For each negative the (M,) places of the tokens to take it from: the token itself, then others of its row.

    They lie evenly round the row, so that no other row of the batch has a say; a short row repeats some.
    """
    lengths = torch.bincount(tokens.rows, minlength=tokens.num_rows)
    starts = (lengths.cumsum(0) - lengths)[tokens.rows]
    lengths = lengths[tokens.rows]
    place = torch.arange(len(tokens.rows), device=tokens.rows.device) - starts
    return [starts + (place + lengths * number // count) % lengths for number in range(count)]


def _generator(setup: Setup, name: str) -> torch.Generator:
    """Of the run, whatever rows the loss is on: samples of a base loss are turned to the same direction."""
    run = setup.seed.partition("/")[0]
    return torch.Generator().manual_seed(int(sha256_text(f"{run}/{name}")[:15], 16))
