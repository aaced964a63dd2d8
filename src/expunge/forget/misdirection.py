"""RMU, Adaptive RMU: steer the hidden states of forget rows to one random direction (arXiv:2408.06223)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from expunge.core.errors import UserError
from expunge.data.batch import to_device
from expunge.data.generator import named_generator
from expunge.forget.base import ForgetLoss
from expunge.losses.activations import (
    HiddenLossConfig,
    HiddenStatesLoss,
    cosine,
    layer_at,
    mean_by_row,
    padded_norm,
    row_norms,
)
from expunge.losses.base import Setup, View
from expunge.models.forward import Needs
from expunge.numerics.token import reduce_tokens

_DRAWS = {"uniform": torch.rand, "gaussian": torch.randn}


class Misdirection(HiddenStatesLoss, ForgetLoss):
    """Squared distance of each token's hidden state to `c u`: RMU (arXiv:2403.03218) for a fixed c, else Adaptive RMU.

    u is drawn once and saved with the model. The uniform draw has no negative entry, so that every u points 30 degrees
    off the all-ones direction, and those of two topics 41 degrees apart; the Gaussian has neither property.

    Norms are those of the original model, means over a row's tokens. The papers take all tokens, those of a template
    and of the start included, whose norms can be many times the others'; `tokens = "all"` is that.
    The official adaptive code measures one batch, by weights that may already have moved: `mode = "first_batch"` is the
    same with the original weights. It also counts the padding that it puts before shorter rows, whose states have other
    norms: `average = "padded"`. Forgetting needs c above the norm (arXiv:2408.06223, section 4.3).
    """

    class Config(HiddenLossConfig):
        """Where to, and how far."""

        coefficient: float | Literal["adaptive"] = Field(
            "adaptive", description="Length c of the target; adaptive: scale times the norm of the original states"
        )
        scale: float = Field(5.0, gt=0, description="With an adaptive coefficient: target length in norms (beta)")
        norm_depth: float | None = Field(
            None, ge=0, lt=1, description="Measure norms at this share of the depth instead: one length for any layer"
        )
        mode: Literal["corpus", "per_sample", "per_batch", "first_batch"] = Field(
            "corpus", description="Whose mean norm: all rows of the topic, each row, each batch, the topic's first rows"
        )
        average: Literal["tokens", "padded"] = Field(
            "tokens",
            description="With mode first_batch: mean norm over rows' own tokens, or over all places of the batch, "
            "padded on the left, as in the official code",
        )
        first_rows: int = Field(4, ge=1, description="With mode first_batch: so many rows of each topic")
        direction: Literal["uniform", "gaussian"] = Field("uniform", description="Distribution of the entries of u")
        orthogonal_topics: bool = Field(False, description="Make the directions of different topics orthogonal")
        normalise: bool = Field(
            True, description="Divide by the mean squared norm of the original states; false: by their width"
        )

    logged = ("forget_norm", "forget_cosine_to_direction", "coefficient")

    def prepare(self, setup: Setup) -> None:
        """Draw a direction for each topic and measure the original norms.

        Raises:
            UserError: no such layer, or none that training can move; padded averages of anything but a first batch.
        """
        padded = self.config.average == "padded"
        if padded and (self.config.coefficient, self.config.mode) != ("adaptive", "first_batch"):
            raise UserError('forget.average: "padded" is the mean over a first batch; set forget.mode = "first_batch"')
        super().prepare(setup)
        self.needs = Needs()  # norms are measured here, and nothing else is compared
        norms, squares = row_norms(setup, self.site).to(setup.model.device).unbind(1)
        depth = self.config.norm_depth
        other = None if depth is None else row_norms(setup, self.site, layer_at(setup.model, depth))[:, 0].to(norms)
        names = [row.topic or "" for row in setup.rows]
        topics = sorted(set(names))
        width = int(setup.model.base.config.get_text_config().hidden_size)
        seed = setup.seed.partition("/")[0]
        directions = [_unit(_DRAWS[self.config.direction], width, f"{seed}/direction/{topic}") for topic in topics]
        if self.config.orthogonal_topics:
            directions = list(torch.linalg.qr(torch.stack(directions, 1)).Q.mT)
        self.directions = dict(zip(topics, directions, strict=True))
        self._norms = norms if other is None else other
        self._unit = float(squares.mean()) if self.config.normalise else float(width)
        self._topics = torch.tensor([topics.index(name) for name in names], device=norms.device)
        self._matrix = torch.stack(directions).to(norms.device)
        places = [[index for index, name in enumerate(names) if name == topic] for topic in topics]
        self._lengths = torch.stack([self._length(setup, rows) for rows in places])
        self._warn(topics, norms)

    def loss(self, view: View) -> Tensor:
        """Mean over tokens of `||h - c u||^2`, in squared norms or over the width; norm and cosine are logged."""
        tokens = self.site.tokens(view.batch)
        hidden = tokens.of(view.hidden(self.site.layers)[0])
        indices = to_device(torch.tensor(view.batch.indices), tokens.rows.device)
        topics = self._topics[indices]
        targets = self._coefficients(indices)[:, None] * self._matrix[topics]
        values = (hidden - targets[tokens.rows]).square().sum(-1) / self._unit
        self.logs = {
            "forget_norm": mean_by_row(hidden.norm(dim=-1), tokens),
            "forget_cosine_to_direction": mean_by_row(cosine(hidden, self._matrix[topics][tokens.rows]), tokens),
            "coefficient": self._coefficients(indices).mean(),
        }
        return reduce_tokens(values, tokens.rows, tokens.num_rows, self.config.reduction)

    def tensors(self) -> dict[str, Tensor]:
        """The direction of each topic, (D,), and the length of its target."""
        return {
            **{f"direction{_suffix(topic)}": direction for topic, direction in self.directions.items()},
            "coefficient": self._lengths,
        }

    def _length(self, setup: Setup, rows: Sequence[int]) -> Tensor:
        """Target length of one topic, from the mean norms of its rows."""
        norms = self._norms[list(rows)]
        if self.config.coefficient != "adaptive":
            return norms.new_tensor(self.config.coefficient)
        if self.config.average == "padded":
            depth = self.config.norm_depth
            layer = self.site.layer if depth is None else layer_at(setup.model, depth)
            padded: Tensor = self.config.scale * padded_norm(setup, layer, rows[: self.config.first_rows])
            return padded
        measured = norms[: self.config.first_rows] if self.config.mode == "first_batch" else norms
        length: Tensor = self.config.scale * measured.mean()
        return length

    def _coefficients(self, indices: Tensor) -> Tensor:
        """(B,) target length for each row of a batch."""
        if self.config.coefficient == "adaptive" and self.config.mode in ("per_sample", "per_batch"):
            norms: Tensor = self.config.scale * self._norms[indices]
            return norms if self.config.mode == "per_sample" else norms.mean().expand(len(indices))
        return torch.index_select(self._lengths, 0, self._topics[indices])

    def _warn(self, topics: list[str], norms: Tensor) -> None:
        for place, topic in enumerate(topics):
            norm, length = float(norms[self._topics == place].mean()), float(self._lengths[place])
            if length <= norm:
                of_topic = f" of topic '{topic}'" if topic else ""
                self.warnings.append(
                    f"The target length {length:.3g}{of_topic} is not above the mean norm {norm:.3g} of layer "
                    f"{self.site.layer}: little will be forgotten; raise forget.coefficient or forget.scale."
                )


def _unit(draw: Any, width: int, name: str) -> Tensor:
    """(D,) direction of length 1, drawn in float32 on the CPU, whatever the model's device and dtype."""
    entries: Tensor = draw(width, generator=named_generator(name))
    direction: Tensor = entries / entries.norm()
    return direction


def _suffix(topic: str) -> str:
    return f".{topic}" if topic else ""
