"""Mutual information: the block that tells forget from retain text best, and those below it (arXiv:2502.01472)."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from pydantic import Field

from expunge.core.errors import UserError
from expunge.core.records import Frozen, LayerCurve
from expunge.data.encode import Encoded
from expunge.data.example import Example
from expunge.data.splits import Splits
from expunge.localize._blocks import share_of_depth, window_below
from expunge.localize.base import Localizer, Selection
from expunge.models.base import LanguageModel
from expunge.models.block_outputs import Pooling
from expunge.models.entanglement import (
    TEXTS_PER_COMPONENT,
    BlockMeasure,
    Estimator,
    activations,
    block_measures,
    equal_samples,
    gradient_measure,
    information,
)
from expunge.models.module_names import parameter_names


class MutualInformation(Localizer):
    """The block where forget and retain activations are least entangled, and the blocks just below it.

    The paper's own estimate (eq. 2-7) pairs unrelated rows and changes with the scale of the activations. `js` instead
    measures the information between an activation and the set it comes from: the Jensen-Shannon divergence of the two
    densities, from 0 (entangled) to ln 2 nats, and selects the largest. `paper` is the published code, a heuristic kept
    for reproduction, and selects the smallest.

    With `eta`, every topic of the forget rows is a domain F_i, and eq. 7 is computed:
    `sum_i I(F_i; R) + eta sum_{i<j} I(F_i; F_j)`, with the estimator's measure for I. A positive eta favours a block
    where the domains are also far apart, as in the formula; a negative one a block where they are entangled, as in the
    paper's text. The paper gives no value and its code has no such term, so by default all forget rows are one domain.

    The evidence also holds a linear probe, the angle between the sets' principal subspaces and, on request, the cosine
    of their gradients, and names the measures that would have selected another block.
    """

    class Config(Frozen):
        """Options of the comparison, and of the weights to train."""

        estimator: Estimator = Field(
            "js", description="js: Jensen-Shannon divergence, largest wins; paper: its code's heuristic, smallest wins"
        )
        token: Pooling = Field("last", description="Output at a text's last token, or its mean over all tokens")
        texts: int = Field(200, ge=10, description="At most this many forget rows, and as many retain rows")
        components: int = Field(
            4, ge=1, le=16, description="Principal components that are compared; each needs 10 texts of either kind"
        )
        depth: tuple[float, float] = Field(
            (0.0, 1.0), description="The best block is searched from one share of the depth up to another"
        )
        eta: float | None = Field(
            None,
            description="Weight of the term between forget domains, which are the rows' topics. Default: all forget "
            "rows are one domain",
        )
        window: int = Field(
            3, ge=1, description="Number of neighbouring blocks to train, the highest being the best one"
        )
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
        drawn = equal_samples(splits.forget, splits.retain, config.texts, config.components, seed, "localize")
        forget, retain = ([model.encoder.example(row) for row in rows] for rows in drawn)
        measures = block_measures(
            model, forget, retain, config.token, config.estimator, config.components, seed, "localize"
        )
        terms: list[BlockMeasure] = []
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
            measures.append(gradient_measure(model, forget, retain, groups))
        for measure in (*measures, *terms):
            measure.check("localize")
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
        needed = TEXTS_PER_COMPONENT * self.config.components
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
        self,
        model: LanguageModel,
        domains: Mapping[str, Sequence[Encoded]],
        retain: Sequence[Encoded],
        like: BlockMeasure,
    ) -> list[BlockMeasure]:
        """Per block, I of every domain and the retain rows, then of every pair of domains."""
        sets = {name: activations(model, rows, self.config.token) for name, rows in (*domains.items(), ("", retain))}
        found = []
        for one, other in [(name, "") for name in domains] + list(itertools.combinations(domains, 2)):
            count = min(len(sets[one]), len(sets[other]))
            pairs = zip(sets[one][:count].swapaxes(0, 1), sets[other][:count].swapaxes(0, 1), strict=True)
            try:
                values = [information(*pair, self.config.estimator, self.config.components) for pair in pairs]
            except (ValueError, np.linalg.LinAlgError) as error:
                raise UserError(f"localize: '{one}': {str(error).splitlines()[0]}") from None
            found.append(replace(like, name=f"{like.name}, {one} and {other or 'retain'}", values=values))
        return found


def multi_domain(num_domains: int, terms: Sequence[Sequence[float]], eta: float) -> list[float]:
    """Eq. 7 per block: the terms of the domains with the retain rows, plus eta times those between domains.

    Args:
        num_domains: number of terms with the retain rows.
        terms: one value per block; those with the retain rows first.
        eta: weight of the others.
    """
    weights = [1.0 if place < num_domains else eta for place in range(len(terms))]
    return [
        sum(weight * value for weight, value in zip(weights, block, strict=True)) for block in zip(*terms, strict=True)
    ]
