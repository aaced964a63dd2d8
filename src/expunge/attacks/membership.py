"""Membership: do losses give away which rows the model was trained on? (arXiv:1709.01604)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from pydantic import Field

from expunge.attacks.base import Attack, Attempt, Context, Inside
from expunge.core.records import Frozen
from expunge.evaluate.base import EvaluateConfig
from expunge.evaluate.evidence import collect
from expunge.evaluate.score import item_values, load_metrics, needs_of


class Membership(Attack):
    """Sets each forget row against holdout rows, which no model has seen, by the scores `mia_*` of the evaluation.

    A row's number is the share of holdout rows that look less like members than it does: their mean is the AUC, and 0.5
    is a model that tells nothing. `at 1%` is 1 for a row below the threshold that at most 1% of the holdout rows are
    below: its mean is the true-positive rate at 1% false positives.
    """

    class Config(Frozen):
        """Which scores."""

        scores: tuple[str, ...] = Field(
            ("mia_loss", "mia_zlib", "mia_min_k", "mia_min_k_plus_plus"),
            min_length=1,
            description="Row metrics that are higher for rows that look less like members",
        )
        rate: float = Field(0.01, ge=0, lt=1, description="False positives that are allowed")

    access = "logits"
    tries = ("membership inference",)

    def check(self, context: Context) -> None:
        """Refuse scores that there are not.

        Raises:
            UserError: no such row metric.
        """
        load_metrics(EvaluateConfig(metrics=self.config.scores))

    def run(self, context: Context) -> Iterator[Attempt]:
        """Two attempts for each score."""
        context.check_time()
        if not context.splits.holdout:
            reason = "no rows that no model was trained on: --data holdout=..., or data.holdout"
            yield Attempt("", [reason] * len(context.rows), inside=Inside("looks like a member"))
            return
        found = self._values(context)
        before = None if context.load_original is None else self._values(replace(context, model=context.original()))
        for name in self.config.scores:
            auc = Inside(f"{name}: looks like a member (AUC)", 0.5, shares(*before[name]) if before else ())
            yield Attempt(name, shares(*found[name]), inside=auc)
            rate = Inside(
                f"{name}: found out (true-positive rate)",
                self.config.rate,
                flags(*before[name], self.config.rate) if before else (),
            )
            yield Attempt(f"{name} at {self.config.rate:.0%}", flags(*found[name], self.config.rate), inside=rate)

    def _values(self, context: Context) -> dict[str, tuple[list[float], list[float]]]:
        """Score -> numbers of the forget rows and of the holdout rows."""
        metrics = load_metrics(EvaluateConfig(metrics=self.config.scores))
        rows = {"forget": context.rows, "holdout": context.splits.holdout}
        evidence = collect(context.model, rows, needs_of(metrics), context.config, context.seed, context.progress)
        values = item_values(evidence, metrics)
        return {
            name: ([float(one) for one in values["forget"][name]], [float(one) for one in values["holdout"][name]])
            for name in metrics
        }


def shares(members: Sequence[float], others: Sequence[float]) -> list[float]:
    """For each member the share of the others above it, ties half: M numbers whose mean is the AUC."""
    gaps = np.asarray(others)[None] - np.asarray(members)[:, None]
    return [float(share) for share in ((np.sign(gaps) + 1) / 2).mean(axis=1)]


def flags(members: Sequence[float], others: Sequence[float], rate: float) -> list[float]:
    """1 for a member below the first of the others that may not be flagged any more: M numbers."""
    threshold = sorted(others)[int(rate * len(others) + 1e-9)]
    return [float(value < threshold) for value in members]
