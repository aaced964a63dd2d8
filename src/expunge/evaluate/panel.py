"""Several language models rate the same texts: their mean, and how far they agree."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from pydantic import Field

from expunge.core.records import Frozen
from expunge.evaluate.base import Absent
from expunge.evaluate.llm_judge import Rater, RaterConfig

_PROMPTS = Path(__file__).with_name("prompts")


class PanelConfig(Frozen):
    """Who rates."""

    judges: tuple[RaterConfig, ...] = Field(
        (),
        description='Language models that rate, e.g. [{model = "NAME", endpoint = "https://host/v1"}]; questions and '
        "answers of the measured rows are sent to every endpoint that is named here, and nowhere else",
    )


class Panel:
    """Judges of one metric. What was rated once is not rated again.

    Args:
        config: who rates.
        metric: name of the metric, whose prompt is `prompts/NAME.txt` without its `judged_`.

    Raises:
        UserError: no such model, or an address that cannot be used.
    """

    def __init__(self, config: PanelConfig, metric: str) -> None:
        option = f"evaluate.options.{metric}.judges"
        self._raters = [Rater(judge, f"{option}.{place}") for place, judge in enumerate(config.judges)]
        self._missing = "" if self._raters else f"no judge named: set {option}"
        self._template = Template((_PROMPTS / f"{metric.removeprefix('judged_')}.txt").read_text(encoding="utf-8"))
        self._rated: dict[str, list[float | str]] = {}

    def prompt(self, **texts: str) -> str:
        """What the judges are asked about some texts."""
        return self._template.substitute(texts)

    def rate(self, prompts: Iterable[str]) -> None:
        """Have everything rated that was not yet."""
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._rated]
        if new and self._raters:
            ratings = zip(*(self._ratings(rater, new) for rater in self._raters), strict=True)
            self._rated.update(zip(new, map(list, ratings), strict=True))

    @staticmethod
    def _ratings(rater: Rater, prompts: Sequence[str]) -> list[float | str]:
        """Numbers of one judge; of several processes only the first asks an endpoint, which costs money and time."""
        state = PartialState()
        if not rater.is_remote or state.num_processes == 1:
            return rater.rate(prompts)
        asked: list[Any] = [rater.rate(prompts) if state.is_main_process else None]
        broadcast_object_list(asked)
        ratings: list[float | str] = asked[0]
        return ratings

    def rating(self, prompt: str) -> float:
        """Mean of the judges' numbers, in [0, 5].

        Raises:
            Absent: nobody rates, or one of the judges gave no number: a mean over others would not compare.
        """
        if self._missing:
            raise Absent(self._missing)
        self.rate([prompt])
        ratings = self._rated[prompt]
        for rating in ratings:
            if isinstance(rating, str):
                raise Absent(rating)
        return float(np.mean([rating for rating in ratings if isinstance(rating, float)]))

    def told(self, prompts: Iterable[str]) -> str | None:
        """Who rates, and the agreement of each two judges on some texts; None where nobody does."""
        if not self._raters:
            return None
        names = ", ".join(rater.name for rater in self._raters)
        pairs = [
            f"{self._raters[one].name} and {self._raters[other].name}: {agreement(*ratings)}"
            for one, other in combinations(range(len(self._raters)), 2)
            if (ratings := self._both([*dict.fromkeys(prompts)], one, other))[0]
        ]
        return f"judged by {names}" + (f"; agreement of {'; '.join(pairs)}" if pairs else "")

    def _both(self, prompts: Sequence[str], one: int, other: int) -> tuple[list[float], list[float]]:
        """Numbers of two judges on the texts that both of them rated."""
        first, second = [], []
        for prompt in prompts:
            pair = self._rated[prompt][one], self._rated[prompt][other]
            if isinstance(pair[0], float) and isinstance(pair[1], float):
                first.append(pair[0])
                second.append(pair[1])
        return first, second


def agreement(first: Sequence[float], second: Sequence[float]) -> str:
    """Pearson's and Spearman's correlation and the mean absolute difference of two judges' numbers, in words."""
    from scipy.stats import pearsonr, spearmanr

    varied = len(set(first)) > 1 and len(set(second)) > 1
    parts = [
        f"{name} {float(test(first, second).statistic):.2f}"
        for name, test in (("Pearson", pearsonr), ("Spearman", spearmanr))
        if varied
    ]
    difference = float(np.abs(np.subtract(first, second)).mean())
    return ", ".join([*parts, f"mean absolute difference {difference:.2f}", f"n={len(first)}"])
