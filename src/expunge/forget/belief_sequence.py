"""BS-S: forget what the model itself would say, beside the stored answers (arXiv:2510.19422)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import BaseModel, Field, ValidationInfo, field_validator
from torch import Tensor

from expunge.core.errors import UserError
from expunge.core.plugin_options import options_class
from expunge.core.plugins import find
from expunge.core.validation import check
from expunge.forget.base import ForgetLoss
from expunge.losses.base import Project, Setup, View
from expunge.losses.row_subset import RowSubset
from expunge.models.base import LanguageModel
from expunge.models.forward import Needs, RowSet, row_set
from expunge.models.reference_weights import OriginalWeights
from expunge.models.sample import Sample, Sampler, SamplingConfig


@dataclass(frozen=True)
class Beliefs:
    """Samples of some forget rows. They are kept in memory only: they may hold what is to be forgotten."""

    rows: RowSet
    places: Mapping[int, Sequence[int]]
    """Forget row -> where its samples are in `rows`; none where all were empty."""
    logs: Mapping[str, float | Tensor]


class BeliefSequence(ForgetLoss):
    """Any other forget loss, on the stored answers and on answers that are sampled from the model.

    Every row weighs the same, however many of its samples are empty: a row's samples are averaged, and a row without
    any counts with its stored answer alone. `refresh = "off_policy"` samples once, from the original model; `epoch`
    samples all rows anew every `refresh_every` epochs, and checkpoints are then taken between such periods only;
    `step` samples each batch when it comes. Samples that equal the stored answer stay; `belief_duplicates` is their
    share.

    Sampled without cut at temperature 1 from the current model, gradient ascent on samples is noise around zero (the
    score function has mean zero): `top_k`, `candidates`, a base like `belief_token` or old samples give it direction.

    A base that lays out rows of its own does so for the samples too, as it would if they were the forget rows. One
    that needs the original model gets it for the samples: for on-policy ones by a copy of the trainable weights.
    """

    class Config(SamplingConfig):
        """Options of BS-S."""

        base: str = Field("belief_token", description="The forget loss that is applied to answers and samples")
        base_options: dict[str, Any] = Field(
            default_factory=dict, validate_default=True, description="Options of that loss"
        )
        weight: float = Field(0.5, ge=0, le=1, description="Share of the samples in the loss (lambda)")
        samples: int = Field(3, ge=1, le=1_000, description="Sampled answers for each forget row (N)")
        candidates: int = Field(
            0,
            ge=0,
            le=10_000,
            description="Draw so many and keep the likeliest by mean token log-probability; 0: as many as kept",
        )
        refresh: Literal["off_policy", "epoch", "step"] = Field(
            "epoch",
            description="Sample once from the original model, every refresh_every epochs, or anew for each batch",
        )
        refresh_every: int = Field(1, ge=1, description="Epochs for which samples are used with refresh epoch")

        @field_validator("candidates")
        @classmethod
        def _enough(cls, value: int, info: ValidationInfo) -> int:
            if value and value < info.data.get("samples", 0):
                raise ValueError(f"must be 0 or at least samples ({info.data['samples']})")
            return value

        @field_validator("base_options")
        @classmethod
        def _complete(cls, value: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
            """Checked and with its defaults, as a slot's own options are."""
            if "base" not in info.data:
                return value
            options = check(_options_of(info.data["base"]), value, "forget.base_options")
            return options.model_dump(mode="json", exclude_none=True)

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        kind = find("forget", config.base, ForgetLoss)  # type: ignore[type-abstract]
        options = check(kind.Config, config.base_options, "forget.base_options")
        self._on_answers, self._on_samples = kind(options), kind(options)
        self.logged = (*self._on_answers.logged, "belief_empty", "belief_duplicates", "belief_logp")
        self.needs = self._on_answers.needs
        self.whole_epochs = config.refresh_every if config.refresh == "epoch" else 0
        self._original: OriginalWeights | None = None
        self._beliefs: Beliefs | None = None
        self._sampled_in: int | None = None

    def prepare(self, setup: Setup) -> None:
        """Sample the original model, or keep what is needed to sample later."""
        self._setup = setup
        self._on_answers.prepare(setup)
        self.needs = self._on_answers.needs
        self._sampler = Sampler(setup.model, setup.rows, setup.sequences, self.config)
        if self.config.refresh == "off_policy":
            self._beliefs = self._sample(range(len(setup.rows)), epoch=0)
        elif self.needs != Needs():
            self._original = OriginalWeights(setup.model)

    def start(self, model: LanguageModel, project: Project) -> None:
        """As the base starts."""
        self._on_answers.start(model, project)

    def tensors(self) -> dict[str, Tensor]:
        """What the base would save."""
        return self._on_answers.tensors()

    def loss(self, view: View) -> Tensor:
        """Eq. 7: `(1 - weight) base(answers) + weight base(samples)`, the latter a mean over each row's samples."""
        beliefs = self._current(view)
        on_answers = self._on_answers.loss(view)
        self.logs = {**self._on_answers.logs, **beliefs.logs}
        weight: float = self.config.weight
        return (1 - weight) * on_answers + weight * self._over_samples(view, beliefs)

    def _over_samples(self, view: View, beliefs: Beliefs) -> Tensor:
        """The base's loss with all samples of the batch in one forward; rows with equally many are reduced together."""
        mine = [beliefs.places[index] for index in view.batch.indices]
        owners = [row for row, places in enumerate(mine) for _ in places]
        samples = view.over(beliefs.rows, [place for places in mine for place in places]) if owners else view
        values = []
        for count in sorted({len(places) for places in mine}):
            rows = [row for row, places in enumerate(mine) if len(places) == count]
            if count:
                value = self._on_samples.loss(_part(samples, [at for at, row in enumerate(owners) if row in rows]))
            else:
                value = self._on_answers.loss(_part(view, rows))
            values.append(len(rows) / len(mine) * value)
        return torch.stack(values).sum()

    def _current(self, view: View) -> Beliefs:
        """The samples that are due. A row is met once an epoch, so that the epoch names a step's draws too."""
        if self.config.refresh == "step":
            return self._sample(view.batch.indices, view.epoch)
        start = view.epoch - view.epoch % self.config.refresh_every
        if self.config.refresh == "epoch" and start != self._sampled_in:
            self._beliefs = self._sample(range(len(self._setup.rows)), start)
            self._sampled_in = start
        assert self._beliefs is not None, "prepare comes first"
        return self._beliefs

    def _sample(self, indices: Sequence[int], epoch: int) -> Beliefs:
        """Sample some forget rows from the model as it is now."""
        numbers = range(self.config.candidates or self.config.samples)
        name = f"{self._setup.seed}/belief/{epoch}"
        drawn = self._sampler.draw(indices, [[f"{name}/{index}/{number}" for number in numbers] for index in indices])
        kept = [sorted(row, key=lambda sample: -sample.logp)[: self.config.samples] for row in drawn]
        ends = torch.tensor([0, *map(len, kept)]).cumsum(0).tolist()
        places = {index: range(*ends[at : at + 2]) for at, index in enumerate(indices)}
        samples = [sample for row in kept for sample in row]
        num_filled = sum(map(len, drawn))
        logs = {"belief_empty": 1 - num_filled / (len(numbers) * len(indices)), **_describe(samples)}
        return Beliefs(self._row_set(samples, name), places, logs)

    def _row_set(self, samples: Sequence[Sample], name: str) -> RowSet:
        """The samples, with what the base needs of the original model for them."""
        epochs = self._setup.epochs
        uses = {"off_policy": epochs, "epoch": min(self.config.refresh_every, epochs), "step": 1}[self.config.refresh]
        sequences = [sample.encoded for sample in samples]
        setup = Setup(self._setup.model, [sample.example for sample in samples], sequences, name, uses)
        with self._original.swapped_in() if self._original else nullcontext():
            self._on_samples.prepare(setup)
            return row_set(setup.model, sequences, self._on_samples.needs, reused=uses > 1)


def _options_of(name: str) -> type[BaseModel]:
    """The options of the base loss.

    Raises:
        UserError: no such loss, or one that has a base itself.
    """
    try:
        options = options_class("forget", name)
    except UserError as error:
        raise UserError(f"forget.base: {error}") from None
    if "base_options" in options.model_fields:
        raise UserError(f"forget.base: '{name}' cannot be its own base; name another forget loss, e.g. belief_token")
    return options


def _describe(samples: Sequence[Sample]) -> dict[str, float]:
    """How many samples repeat the stored answer, and how likely they are to the model that drew them."""
    if not samples:
        return {}
    return {
        "belief_duplicates": sum(sample.repeats for sample in samples) / len(samples),
        "belief_logp": sum(sample.logp for sample in samples) / len(samples),
    }


def _part(view: View, rows: Sequence[int]) -> View:
    return view if len(rows) == view.batch.num_rows else RowSubset(view, rows)
