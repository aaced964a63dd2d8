"""Membership inference: do losses reveal which rows the model was trained on? (arXiv:1709.01604)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from pydantic import Field

from expunge.attacks.base import Attack, AttackContext, Attempt, InternalMeasure, Value, numbers_of
from expunge.core.records import Frozen
from expunge.evaluate.config import EvaluateConfig
from expunge.evaluate.evidence import collect
from expunge.evaluate.membership import flagged, win_shares
from expunge.evaluate.score import item_values, load_metrics, needs_of
from expunge.numerics.intervals import Numbers


class MembershipInference(Attack):
    """Compares forget rows with holdout rows, which no model was trained on, by the metrics `mia_*` of the evaluation.

    A row's number is the share of holdout rows that look less like members than the row; the mean is the AUC, 0.5 if
    the model reveals nothing. `at 1%` is 1 for rows below a threshold that at most 1% of the holdout rows are below;
    its mean is the true-positive rate at 1% false positives.
    """

    class Config(Frozen):
        """Options of the scores."""

        scores: tuple[str, ...] = Field(
            ("mia_loss", "mia_zlib", "mia_min_k", "mia_min_k_plus_plus"),
            min_length=1,
            description="Row metrics that are higher for rows that look less like members",
        )
        rate: float = Field(0.01, ge=0, lt=1, description="Allowed rate of false positives")

    access = "logits"
    tries = ("membership inference",)

    def check(self, context: AttackContext) -> None:
        """Refuse unknown scores.

        Raises:
            UserError: no such row metric.
        """
        load_metrics(EvaluateConfig(metrics=self.config.scores))

    def run(self, context: AttackContext) -> Iterator[Attempt]:
        """Two attempts per score."""
        context.check_time()
        if not context.splits.holdout:
            reason = "no rows that no model was trained on: --data holdout=..., or data.holdout"
            yield Attempt("", [reason] * len(context.rows), inside=InternalMeasure("looks like a member"))
            return
        found = self._values(context)
        before = None if context.load_original is None else self._values(replace(context, model=context.original()))
        for name in self.config.scores:
            auc = InternalMeasure(f"{name}: looks like a member (AUC)", 0.5, shares(*before[name]) if before else ())
            yield Attempt(name, shares(*found[name]), inside=auc)
            rate = InternalMeasure(
                f"{name}: found out (true-positive rate)",
                self.config.rate,
                flags(*before[name], self.config.rate) if before else (),
            )
            yield Attempt(f"{name} at {self.config.rate:.0%}", flags(*found[name], self.config.rate), inside=rate)

    def _values(self, context: AttackContext) -> dict[str, tuple[list[Value], list[Value]]]:
        """Score -> values of the forget rows and of the holdout rows."""
        metrics = load_metrics(EvaluateConfig(metrics=self.config.scores))
        rows = {"forget": context.rows, "holdout": context.splits.holdout}
        evidence = collect(context.model, rows, needs_of(metrics), context.config, context.seed, context.progress)
        values = item_values(evidence, metrics)
        return {name: (values["forget"][name], values["holdout"][name]) for name in metrics}


def shares(members: Sequence[Value], others: Sequence[Value]) -> list[Value]:
    """`win_shares` of the members that have a number; the rest keep their reasons."""
    return _each(members, others, win_shares)


def flags(members: Sequence[Value], others: Sequence[Value], rate: float) -> list[Value]:
    """`flagged` for the members that have a number; the rest keep their reasons."""
    return _each(members, others, partial(flagged, rate=rate))


def _each(
    members: Sequence[Value], others: Sequence[Value], test: Callable[[Numbers, Numbers], Numbers]
) -> list[Value]:
    """A number for each member that has a value, if any of the others has one."""
    mine, theirs = (np.array(numbers_of(side)) for side in (members, others))
    if not len(theirs):
        return [f"no holdout row has a number: {next(iter(others), 'there is none')}"] * len(members)
    found = iter(test(mine, theirs).tolist())
    return [value if isinstance(value, str) else next(found) for value in members]
