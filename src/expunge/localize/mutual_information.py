"""Mutual information: the block that tells forget from retain text best, and those below it (arXiv:2502.01472)."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from pydantic import Field

from expunge.core.errors import UserError
from expunge.core.records import Frozen, LayerCurve
from expunge.data.encode import Encoded
from expunge.data.example import Example
from expunge.data.splits import Splits
from expunge.localize._blocks import parameter_names, share_of_depth, window_below
from expunge.localize._entanglement import (
    Sample,
    jensen_shannon,
    paper_information,
    probe_auc,
    subspace_cosines,
)
from expunge.localize._gradients import gradient_cosines
from expunge.localize.base import Localizer, Selection
from expunge.models.base import LanguageModel
from expunge.models.block_outputs import Pooling, block_outputs

_TEXTS_A_COMPONENT = 10
"""Fewer leave a density of that many dimensions to chance."""


@dataclass(frozen=True)
class _Measure:
    """One value for each block, and which way separates the two sets."""

    name: str
    values: list[float]
    apart: Literal["high", "low", "near 0"]

    def best(self, layers: Sequence[int]) -> list[int]:
        """The blocks among `layers` that separate best: one, or all that tie."""
        separation = {layer: self._separation(self.values[layer]) for layer in layers}
        return [layer for layer, value in separation.items() if value == max(separation.values())]

    def _separation(self, value: float) -> float:
        return {"high": value, "low": -value, "near 0": -abs(value)}[self.apart]


class MutualInformation(Localizer):
    """The block where forget and retain activations are least entangled, and the blocks just below it.

    The paper's own estimate (eq. 2-7) compares rows that nothing pairs and moves with the scale of the activations, so
    `js` measures instead the information between an activation and the set it is from: the Jensen-Shannon divergence
    of the two densities, 0 to ln 2 nats, low where they are entangled, and takes the largest. `paper` is the published
    code, a heuristic kept for reproduction, and takes the smallest.

    With `eta` every topic of the forget rows is a domain F_i of its own, and eq. 7 is computed:
    `sum_i I(F_i; R) + eta sum_{i<j} I(F_i; F_j)`, with the estimator's measure for I. A positive eta seeks a block
    where the domains are far apart too, as the formula has it; a negative one where they are entangled, as the paper's
    text has it. The paper gives no value and its code has no such term, so by default all forget rows are one domain.

    Beside either stand a linear probe, the angle between the sets' principal subspaces and, when asked for, the cosine
    of their gradients; evidence names those that would have chosen another block.
    """

    class Config(Frozen):
        """What is compared, and which weights of the chosen blocks move."""

        estimator: Literal["js", "paper"] = Field(
            "js", description="js: Jensen-Shannon divergence, largest wins; paper: its code's heuristic, smallest wins"
        )
        token: Pooling = Field("last", description="Output at a text's last token, or its mean over all tokens")
        texts: int = Field(200, ge=10, description="At most this many forget rows, and as many retain rows")
        components: int = Field(
            4, ge=1, le=16, description="Principal components that are compared; each needs 10 texts of either kind"
        )
        depth: tuple[float, float] = Field(
            (0.0, 1.0), description="The best block is sought from one share of the depth up to another"
        )
        eta: float | None = Field(
            None,
            description="Weight of the term between forget domains, which are the rows' topics; none: all forget rows "
            "are one domain",
        )
        window: int = Field(3, ge=1, description="So many neighbouring blocks move, the highest of them the best one")
        modules: tuple[str, ...] = Field(
            ("mlp.down_proj",), description="Module names within a block, e.g. mlp.down_proj; empty: all"
        )
        gradient_cosine: bool = Field(
            False, description="Also compare the gradients of both sets in every block, at the cost of backward passes"
        )

    def select(self, model: LanguageModel, splits: Splits, seed: int) -> Selection:
        """Parameters of the named modules in the window below the best block.

        Raises:
            UserError: too few rows, a module that a block lacks, or activations that cannot be compared.
        """
        config = self.config
        num_layers = len(model.blocks())
        candidates = share_of_depth(config.depth, num_layers)
        groups = [parameter_names(model, [layer], config.modules) for layer in range(num_layers)]
        forget, retain = (
            [model.encoder.example(row) for row in rows] for rows in self._drawn(splits.forget, splits.retain, seed)
        )
        measures = self._measures(model, forget, retain, seed)
        terms: list[_Measure] = []
        about_domains: dict[str, Any] = {}
        if config.eta is not None:
            domains = {
                topic: [model.encoder.example(row) for row in rows]
                for topic, rows in self._domains(splits.forget, seed).items()
            }
            terms = self._terms(model, domains, retain, measures[0])
            values = multi_domain(len(domains), [term.values for term in terms], config.eta)
            name = f"{measures[0].name}, domains with eta {config.eta:g}"
            measures[0] = replace(measures[0], name=name, values=values)
            about_domains = {"eta": config.eta, "domains": {name: len(rows) for name, rows in domains.items()}}
        if config.gradient_cosine:
            cosines = gradient_cosines(model, forget, retain, groups)
            measures.append(_Measure("gradient cosine", cosines, "near 0"))
        for measure in (*measures, *terms):
            for layer, value in enumerate(measure.values):
                if not math.isfinite(value):
                    raise UserError(f"localize: block {layer}: the {measure.name} is not a number")
        chosen = measures[0].best(candidates)[0]
        layers = list(window_below(chosen, config.window))
        others = {measure.name: measure.best(candidates) for measure in measures}
        evidence = {
            "layers": layers,
            "layer": chosen,
            "modules": list(config.modules),
            "estimator": config.estimator,
            "heuristic": config.estimator == "paper",
            "token": config.token,
            "texts": len(forget),
            **about_domains,
            "best": {name: best[0] for name, best in others.items()},
            "disagree": [name for name, best in others.items() if chosen not in best],
        }
        curves = tuple(LayerCurve(name=measure.name, values=measure.values) for measure in (*measures, *terms))
        return Selection(parameter_names(model, layers, config.modules), evidence, curves)

    def _drawn(
        self, forget: Sequence[Example], retain: Sequence[Example], seed: int
    ) -> tuple[list[Example], list[Example]]:
        """Equally many rows of both."""
        if not retain:
            raise UserError("localize: mutual_information compares forget rows with retain rows; data.retain has none")
        count = min(self.config.texts, len(forget), len(retain))
        components = self.config.components
        if count < _TEXTS_A_COMPONENT * components:
            most = count // _TEXTS_A_COMPONENT
            way_out = f"set localize.components = {most}" if most else 'choose the blocks: localize.name = "layers"'
            raise UserError(
                f"localize.components: {components} need {_TEXTS_A_COMPONENT * components} texts of each kind, got "
                f"{count} (forget {len(forget)}, retain {len(retain)}, localize.texts {self.config.texts}); {way_out}"
            )
        draw = random.Random(f"{seed}/localize/texts")
        return draw.sample(forget, count), draw.sample(retain, count)

    def _domains(self, forget: Sequence[Example], seed: int) -> dict[str, list[Example]]:
        """Forget rows of every topic, at most `texts` of each.

        Raises:
            UserError: fewer than two topics, a row without one, or too few rows of one.
        """
        topics = sorted({row.topic for row in forget if row.topic})
        if len(topics) < 2 or not all(row.topic for row in forget):
            raise UserError(
                "localize.eta: compares forget rows of different topics, so every row of data.forget needs a field "
                f"'topic', and there must be two or more; found {', '.join(topics) or 'none'}"
            )
        needed = _TEXTS_A_COMPONENT * self.config.components
        found = {topic: [row for row in forget if row.topic == topic] for topic in topics}
        for topic, rows in found.items():
            if len(rows) < needed:
                raise UserError(
                    f"localize.components: {self.config.components} need {needed} texts of each topic, got {len(rows)} "
                    f"of '{topic}'"
                )
        draw = random.Random(f"{seed}/localize/domains")
        return {topic: draw.sample(rows, min(self.config.texts, len(rows))) for topic, rows in found.items()}

    def _terms(
        self, model: LanguageModel, domains: Mapping[str, Sequence[Encoded]], retain: Sequence[Encoded], like: _Measure
    ) -> list[_Measure]:
        """I of every domain and the retain rows, then of every pair of domains, block by block."""
        end, token = model.encoder.end_id, self.config.token
        sets = {
            name: block_outputs(model, [_open(row, end) for row in rows], token).double().numpy()
            for name, rows in (*domains.items(), ("", retain))
        }
        pairs = [(name, "") for name in domains] + list(itertools.combinations(domains, 2))
        found = []
        for one, other in pairs:
            count = min(len(sets[one]), len(sets[other]))
            first, second = sets[one][:count], sets[other][:count]
            try:
                values = [self._score(first[:, layer], second[:, layer]) for layer in range(first.shape[1])]
            except (ValueError, np.linalg.LinAlgError) as error:
                raise UserError(f"localize: '{one}': {str(error).splitlines()[0]}") from None
            found.append(replace(like, name=f"{like.name}, {one} and {other or 'retain'}", values=values))
        return found

    def _measures(
        self, model: LanguageModel, forget: Sequence[Encoded], retain: Sequence[Encoded], seed: int
    ) -> list[_Measure]:
        """The score that chooses, then those beside it."""
        end = model.encoder.end_id
        first, second = (
            block_outputs(model, [_open(row, end) for row in rows], self.config.token).double().numpy()
            for rows in (forget, retain)
        )
        scores, probes, cosines = [], [], []
        for layer in range(first.shape[1]):
            one, other = first[:, layer], second[:, layer]
            try:
                scores.append(self._score(one, other))
                probes.append(probe_auc(one, other, seed))
                cosines.append(subspace_cosines(one, other, self.config.components))
            except (ValueError, np.linalg.LinAlgError) as error:
                raise UserError(f"localize: block {layer}: {str(error).splitlines()[0]}") from None
        return [
            _Measure("JS divergence (nats)", scores, "high")
            if self.config.estimator == "js"
            else _Measure("MI by the paper's heuristic (nats)", scores, "low"),
            _Measure("linear probe AUC", probes, "high"),
            _Measure("smallest principal angle (degrees)", [math.degrees(math.acos(c[0])) for c in cosines], "high"),
            _Measure("subspace overlap (mean cosine)", [float(c.mean()) for c in cosines], "low"),
        ]

    def _score(self, forget: Sample, retain: Sample) -> float:
        if self.config.estimator == "paper":
            return paper_information(forget, retain)
        return jensen_shannon(forget, retain, self.config.components)


def multi_domain(num_domains: int, terms: Sequence[Sequence[float]], eta: float) -> list[float]:
    """Eq. 7 for each block: the terms of the domains with the retain rows, and eta times those between domains.

    Args:
        num_domains: how many of the terms are of the first kind.
        terms: one value for each block; those with the retain rows first.
        eta: weight of the others.
    """
    weights = [1.0 if place < num_domains else eta for place in range(len(terms))]
    return [
        sum(weight * value for weight, value in zip(weights, block, strict=True)) for block in zip(*terms, strict=True)
    ]


def _open(row: Encoded, end_id: int) -> Encoded:
    """A row without the token that closes an answer: every answer ends in the same one, and texts have none."""
    return replace(row, ids=row.ids[:-1]) if row.ids[-1] == end_id else row
