"""Entanglement: how well the activations of two sets of rows can be told apart, block by block (arXiv:2502.01472)."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from expunge.core.errors import UserError
from expunge.data.batch import by_length, collate
from expunge.data.encode import Encoded
from expunge.data.example import Example
from expunge.models.base import LanguageModel
from expunge.models.batches import shrinking
from expunge.models.block_outputs import Pooling, block_outputs
from expunge.models.forward import Forward
from expunge.models.gradients import each_gradient
from expunge.models.precision import float64
from expunge.models.tensor_store import TensorStore
from expunge.numerics.entanglement import Sample, jensen_shannon, paper_information, probe_auc, subspace_cosines
from expunge.numerics.token import reduce_tokens

TEXTS_PER_COMPONENT = 10
"""With fewer texts per principal component, a density estimate is mostly noise."""

Estimator = Literal["js", "paper"]
"""`js`: Jensen-Shannon divergence; `paper`: the heuristic of the published code."""


@dataclass(frozen=True)
class BlockMeasure:
    """One value per block, and which values mean that two sets are far apart."""

    name: str
    values: list[float]
    apart: Literal["high", "low", "near 0"]

    def best(self, layers: Sequence[int]) -> list[int]:
        """The blocks among `layers` that separate the sets best: one, or all that tie."""
        separation = {layer: self._separation(self.values[layer]) for layer in layers}
        return [layer for layer, value in separation.items() if value == max(separation.values())]

    def check(self, where: str) -> None:
        """Refuse values that are not finite.

        Raises:
            UserError: names the first such block; the message begins with `where`.
        """
        for layer, value in enumerate(self.values):
            if not math.isfinite(value):
                raise UserError(f"{where}: block {layer}: the {self.name} is not a number")

    def _separation(self, value: float) -> float:
        return {"high": value, "low": -value, "near 0": -abs(value)}[self.apart]


def equal_samples(
    forget: Sequence[Example], retain: Sequence[Example], texts: int, components: int, seed: int, where: str
) -> tuple[list[Example], list[Example]]:
    """Equally many rows of both sets, drawn by the seed.

    Args:
        forget: rows.
        retain: rows.
        texts: maximum number of rows of each set.
        components: principal components that will be compared.
        seed: of the draw.
        where: prefix of option names in messages, e.g. `localize`.

    Raises:
        UserError: no retain rows, or too few rows for the number of components.
    """
    if not retain:
        raise UserError(f"{where}: compares forget rows with retain rows; data.retain has none")
    count = min(texts, len(forget), len(retain))
    if count < TEXTS_PER_COMPONENT * components:
        most = count // TEXTS_PER_COMPONENT
        remedy = f"set {where}.components = {most}" if most else "give more rows, or choose blocks by number"
        raise UserError(
            f"{where}.components: {components} need {TEXTS_PER_COMPONENT * components} texts of each kind, got "
            f"{count} (forget {len(forget)}, retain {len(retain)}, {where}.texts {texts}); {remedy}"
        )
    draw = random.Random(f"{seed}/localize/texts")
    return draw.sample(forget, count), draw.sample(retain, count)


def activations(model: LanguageModel, rows: Sequence[Encoded], token: Pooling) -> Sample:
    """(R, L, D) output of each block, at the last token or averaged, without the end token that closes answers."""
    end = model.encoder.end_id
    open_rows = [replace(row, ids=row.ids[:-1]) if row.ids[-1] == end else row for row in rows]
    found: Sample = block_outputs(model, open_rows, token).double().numpy()
    return found


def information(one: Sample, other: Sample, estimator: Estimator, components: int) -> float:
    """Information about which of two sets an activation comes from: (n, D), (n, D) -> nats."""
    return paper_information(one, other) if estimator == "paper" else jensen_shannon(one, other, components)


def block_measures(
    model: LanguageModel,
    forget: Sequence[Encoded],
    retain: Sequence[Encoded],
    token: Pooling,
    estimator: Estimator,
    components: int,
    seed: int,
    where: str,
) -> list[BlockMeasure]:
    """Measures of separation of every block, that of the estimator first.

    Args:
        model: any model.
        forget: n rows.
        retain: n rows.
        token: which output of a row is compared.
        estimator: of the information.
        components: principal components that are compared.
        seed: of the folds of the linear probe.
        where: beginning of messages.

    Raises:
        UserError: the activations of a block cannot be compared.
    """
    first, second = (activations(model, rows, token) for rows in (forget, retain))
    scores, probes, cosines = [], [], []
    for layer in range(first.shape[1]):
        one, other = first[:, layer], second[:, layer]
        try:
            scores.append(information(one, other, estimator, components))
            probes.append(probe_auc(one, other, seed))
            cosines.append(subspace_cosines(one, other, components))
        except (ValueError, np.linalg.LinAlgError) as error:
            raise UserError(f"{where}: block {layer}: {str(error).splitlines()[0]}") from None
    return [
        BlockMeasure("JS divergence (nats)", scores, "high")
        if estimator == "js"
        else BlockMeasure("MI by the paper's heuristic (nats)", scores, "low"),
        BlockMeasure("linear probe AUC", probes, "high"),
        BlockMeasure("smallest principal angle (degrees)", [math.degrees(math.acos(c[0])) for c in cosines], "high"),
        BlockMeasure("subspace overlap (mean cosine)", [float(c.mean()) for c in cosines], "low"),
    ]


def gradient_measure(
    model: LanguageModel, forget: Sequence[Encoded], retain: Sequence[Encoded], names: Sequence[Sequence[str]]
) -> BlockMeasure:
    """`gradient_cosines` of the named parameters of each block."""
    return BlockMeasure("gradient cosine", gradient_cosines(model, forget, retain, names), "near 0")


def gradient_cosines(
    model: LanguageModel, forget: Sequence[Encoded], retain: Sequence[Encoded], names: Sequence[Sequence[str]]
) -> list[float]:
    """Cosine between the gradients of two sets' mean answer NLL, over each of several groups of parameters.

    Raises:
        MemoryExhausted: the gradients, or a pass back over a single row, do not fit.
    """
    flat = [name for group in names for name in group]
    first: TensorStore[str] = TensorStore(model.state_memory)
    for name, gradient in _nll_gradients(model, forget, flat).items():
        first.put(name, gradient)
    second = _nll_gradients(model, retain, flat)
    cosines = []
    for group in names:
        one = float64(torch.cat([first[name].flatten() for name in group]).to(model.device))
        other = float64(torch.cat([second[name].flatten() for name in group]))
        cosines.append(float(one @ other / (one.norm() * other.norm())))
    return cosines


def _nll_gradients(model: LanguageModel, sequences: Sequence[Encoded], names: Sequence[str]) -> dict[str, Tensor]:
    """Gradient of the rows' mean token NLL, summed over rows, for the named parameters; float32."""
    named = dict(model.network.named_parameters())
    weights = [named[name] for name in names]

    def work(size: int) -> list[Tensor]:
        sums = [torch.zeros_like(weight, dtype=torch.float32) for weight in weights]

        def add(place: int, gradient: Tensor) -> None:
            sums[place] += gradient

        with model.evaluating(), each_gradient(model, weights, add):
            for indices in by_length([len(one.ids) for one in sequences], size):
                batch = collate([sequences[index] for index in indices], indices).to(model.device)
                logp = Forward(model, batch).token_logp()
                loss = -reduce_tokens(logp, batch.rows, batch.num_rows, "seq_mean") * batch.num_rows
                loss.backward()  # type: ignore[no-untyped-call]
        return sums

    return dict(zip(names, shrinking(model.budget, model.device, "gradient", work), strict=True))
