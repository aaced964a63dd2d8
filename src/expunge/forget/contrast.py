"""FALCON: turn hidden states from where they were towards an offset direction (arXiv:2502.01472)."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import softplus

from expunge.data.batch import collate, to_device
from expunge.data.encode import Encoded
from expunge.data.generator import named_generator
from expunge.forget._offset import Offset, account, code_offset, paper_offset, principal
from expunge.forget.base import ForgetLoss
from expunge.losses.activations import HiddenLossConfig, HiddenStatesLoss, Tokens, cosine, mean_by_row
from expunge.losses.base import Setup, View
from expunge.models.base import LanguageModel
from expunge.models.partial import BlockStates
from expunge.numerics.token import reduce_tokens, sequence_length

_POV_TOKENS = 16384
"""Tokens of a topic that its direction is made from: 8 batches of the paper's size."""
_LEFT = 0.01
"""Share of a direction within the principal subspace that is no more than rounding."""


class Contrast(HiddenStatesLoss, ForgetLoss):
    """InfoNCE on the output of one block: the anchor is a token's state now, the positive a fixed direction p.

    The negative is the original model's state of the same token. Only directions count: the gradient is orthogonal to
    the state, whose length is free to grow (`forget_norm_ratio`) unless `norm_weight` holds it.

    p is a Principal Offset Vector. By the paper's formula it is random, less the principal subspace of the original
    states; with `tokens = "all"` an opening token of huge norm can be all of that subspace. The published code computes
    something else, which in wide models lies mostly within it, and makes one for each batch out of another batch.
    Logged of p: `pov_energy`, its share within the subspace of `pov_dimensions` dimensions, and `pov_cosine` and
    `pov_abs_cosine`, the mean of its cosines with the original states and of their absolute values.
    """

    class Config(HiddenLossConfig):
        """Options of the contrastive loss and of its direction."""

        temperature: float = Field(0.7, gt=0, description="Of the contrast (tau); lower lets go of a token sooner")
        negatives: int = Field(
            1,
            ge=1,
            le=1_000,
            description="Original states that a token is turned from: its own, then others of its row (Z)",
        )
        norm_weight: float = Field(
            0.0, ge=0, description="Weight of the squared relative change of a state's norm; 0: norms are free"
        )
        pov: Literal["paper", "code"] = Field(
            "paper", description="The direction by the paper's formula, or by its code: the two differ in kind"
        )
        per: Literal["topic", "run", "batch"] = Field(
            "topic",
            description="One direction for each topic of the forget rows, for all of them, or for each batch from its "
            "own rows: slow in wide models, and the loss of a row then depends on its batch",
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

    logged = (
        "forget_cosine_to_direction",
        "forget_cosine_to_original",
        "forget_norm_ratio",
        "pov_dimensions",
        "pov_energy",
        "pov_cosine",
        "pov_abs_cosine",
    )

    def prepare(self, setup: Setup) -> None:
        """Make the directions from the original states of the forget rows.

        Raises:
            UserError: no such layer, or one that no trained weight can move.
        """
        super().prepare(setup)
        self._seed = setup.seed.partition("/")[0]
        self._sequences = setup.sequences
        self._width = int(setup.model.base.config.get_text_config().hidden_size)
        by_topic = self.config.per == "topic"
        names = [row.topic or "" if by_topic else "" for row in setup.rows]
        self._topics = sorted(set(names))
        self._places = torch.tensor([self._topics.index(name) for name in names], dtype=torch.long)
        self._povs: list[Offset] = []
        if self.config.per == "batch":
            return
        for topic in self._topics:
            rows = [row for row, name in zip(setup.sequences, names, strict=True) if name == topic]
            self._povs.append(self._offset(topic, self._original_states(setup.model, rows)))
            self._warn(topic, self._povs[-1])

    def loss(self, view: View) -> Tensor:
        """Eq. 9-10: mean of `-log(e^(cos(h, p) / tau) / (e^(cos(h, p) / tau) + sum_z e^(cos(h, h0_z) / tau)))`.

        With one negative that is `softplus((cos(h, h0) - cos(h, p)) / tau)`. Reduced by `reduction`.
        """
        tokens, states, original = self.site.states(view)
        povs = self._povs or [self._offset("", self._batch_states(view))]
        device = tokens.rows.device
        places = to_device(self._places[list(view.batch.indices)], device)[tokens.rows]
        directions = to_device(torch.stack([pov.direction for pov in povs]), device).to(states)
        towards = cosine(states, directions[places])
        away = torch.stack([cosine(states, original[other]) for other in negatives(tokens, self.config.negatives)])
        values = info_nce(towards, away, self.config.temperature)
        ratio = states.norm(dim=-1) / original.norm(dim=-1)
        if self.config.norm_weight:
            values = values + self.config.norm_weight * (ratio - 1) ** 2
        self.logs = {
            "forget_cosine_to_direction": mean_by_row(towards, tokens),
            "forget_cosine_to_original": mean_by_row(away[0], tokens),
            "forget_norm_ratio": mean_by_row(ratio, tokens),
            "pov_dimensions": mean(float(pov.num_dimensions) for pov in povs),
            "pov_energy": mean(pov.energy for pov in povs),
            "pov_cosine": mean(pov.cosine for pov in povs),
            "pov_abs_cosine": mean(pov.abs_cosine for pov in povs),
        }
        return reduce_tokens(values, tokens.rows, tokens.num_rows, self.config.reduction)

    def tensors(self) -> dict[str, Tensor]:
        """The direction of each topic, (D,)."""
        return {
            f"direction.{topic}" if topic else "direction": pov.direction
            for topic, pov in zip(self._topics, self._povs, strict=False)
        }

    def _original_states(self, model: LanguageModel, rows: Sequence[Encoded]) -> Tensor:
        """(M, D) states of a seeded sample of rows, at the tokens that count; whole rows, until they are enough."""
        order = torch.randperm(len(rows), generator=named_generator(f"{self._seed}/pov/rows")).tolist()
        ends = torch.tensor([len(rows[index].ids) for index in order]).cumsum(0)
        chosen = [rows[index] for index in order[: int((ends < _POV_TOKENS).sum()) + 1]]
        kept = BlockStates(model, self.site.layer + 1, chosen)
        batches, cpu = [collate([row], [index]) for index, row in enumerate(chosen)], torch.device("cpu")
        return torch.cat([self.site.tokens(batch).of(kept.batch(batch.indices, cpu)) for batch in batches])

    def _batch_states(self, view: View) -> Tensor:
        """(M, D) original states of a batch on the CPU, where they are kept: nothing is fetched from the device."""
        batch = collate([self._sequences[index] for index in view.batch.indices], view.batch.indices)
        (states,) = view.reference_hidden(self.site.layers, device=torch.device("cpu"))
        return self.site.tokens(batch).of(states)

    @torch.no_grad()
    def _offset(self, topic: str, original: Tensor) -> Offset:
        """The direction of a topic, from (M, D) original states."""
        found = principal(original)
        subspace = found.first(min(found.num_explaining(self.config.explained_variance), self._width // 2))
        generator = named_generator(f"{self._seed}/pov/{topic}")
        if self.config.pov == "paper":
            random = torch.randn(self._width, generator=generator)
            return account(paper_offset(random, subspace, self.config.weight), subspace, original)
        noise = torch.randn(self._width, self._width, generator=generator)
        return account(code_offset(found, noise), subspace, original)

    def _warn(self, topic: str, pov: Offset) -> None:
        chance = pov.num_dimensions / self._width
        if pov.energy > max(chance, _LEFT):
            of_topic = f" of topic '{topic}'" if topic else ""
            self.warnings.append(
                f"The direction{of_topic} lies to {pov.energy:.0%} in the principal subspace of the forget rows "
                f"(by chance {chance:.0%}): states are turned into what it should leave."
            )


def info_nce(towards: Tensor, away: Tensor, temperature: float) -> Tensor:
    """Contrast of one positive with Z negatives, from cosines: (M,), (Z, M) -> (M,) in nats."""
    return softplus(torch.logsumexp(away / temperature, dim=0) - towards / temperature)


def negatives(tokens: Tokens, count: int) -> list[Tensor]:
    """For each negative the (M,) places of the tokens to take it from: the token itself, then others of its row.

    They lie evenly round the row, so that no other row of the batch has a say; a short row repeats some.
    """
    lengths = sequence_length(tokens.rows, tokens.num_rows)
    starts = (lengths.cumsum(0) - lengths)[tokens.rows]
    lengths = lengths[tokens.rows]
    place = torch.arange(len(tokens.rows), device=tokens.rows.device) - starts
    return [starts + (place + lengths * number // count) % lengths for number in range(count)]
