"""Several language models rate the same texts: mean and agreement."""

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
from expunge.evaluate.llm_judge import JudgeConfig, LLMJudge

_PROMPTS = Path(__file__).with_name("prompts")


class PanelConfig(Frozen):
    """Which models rate."""

    judges: tuple[JudgeConfig, ...] = Field(
        (),
        description='Language models that rate, e.g. [{model = "NAME", endpoint = "https://host/v1"}]; questions and '
        "answers of the measured rows are sent to every endpoint listed here, and nowhere else",
    )


class Panel:
    """The judges of one metric; each text is rated once.

    Args:
        config: which models rate.
        metric: name of the metric, whose prompt is `prompts/NAME.txt` without its `judged_`.

    Raises:
        UserError: no such model, or an address that cannot be used.
    """

    def __init__(self, config: PanelConfig, metric: str) -> None:
        option = f"evaluate.options.{metric}.judges"
        self._judges = [LLMJudge(one, f"{option}.{place}") for place, one in enumerate(config.judges)]
        self._missing = "" if self._judges else f"there is no judge: set {option}"
        self._template = Template((_PROMPTS / f"{metric.removeprefix('judged_')}.txt").read_text(encoding="utf-8"))
        self._rated: dict[str, list[float | str]] = {}

    def prompt(self, **texts: str) -> str:
        """The judges' prompt about some texts."""
        return self._template.substitute(texts)

    def rate(self, prompts: Iterable[str]) -> None:
        """Rate every prompt that has no rating yet."""
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._rated]
        if new and self._judges:
            ratings = zip(*(self._ratings(judge, new) for judge in self._judges), strict=True)
            self._rated.update(zip(new, map(list, ratings), strict=True))

    @staticmethod
    def _ratings(judge: LLMJudge, prompts: Sequence[str]) -> list[float | str]:
        """Ratings of one judge; of several processes only the first calls an endpoint, which costs money and time."""
        state = PartialState()
        if not judge.is_remote or state.num_processes == 1:
            return judge.rate(prompts)
        shared: list[Any] = [judge.rate(prompts) if state.is_main_process else None]
        broadcast_object_list(shared)
        ratings: list[float | str] = shared[0]
        return ratings

    def rating(self, prompt: str) -> float:
        """Mean of the judges' numbers, in [0, 5].

        Raises:
            Absent: there is no judge, or one of them gave no number: means over different judges are not comparable.
        """
        if self._missing:
            raise Absent(self._missing)
        self.rate([prompt])
        ratings = self._rated[prompt]
        for rating in ratings:
            if isinstance(rating, str):
                raise Absent(rating)
        return float(np.mean([rating for rating in ratings if isinstance(rating, float)]))

    def description(self, prompts: Iterable[str]) -> str | None:
        """The judges and the agreement of each pair on some texts; None without judges."""
        if not self._judges:
            return None
        names = ", ".join(judge.name for judge in self._judges)
        pairs = [
            f"{self._judges[one].name} and {self._judges[other].name}: {agreement(*ratings)}"
            for one, other in combinations(range(len(self._judges)), 2)
            if (ratings := self._both([*dict.fromkeys(prompts)], one, other))[0]
        ]
        return f"judged by {names}" + (f"; agreement of {'; '.join(pairs)}" if pairs else "")

    def _both(self, prompts: Sequence[str], one: int, other: int) -> tuple[list[float], list[float]]:
        """Ratings of two judges on the texts that both rated."""
        first, second = [], []
        for prompt in prompts:
            pair = self._rated[prompt][one], self._rated[prompt][other]
            if isinstance(pair[0], float) and isinstance(pair[1], float):
                first.append(pair[0])
                second.append(pair[1])
        return first, second


def agreement(first: Sequence[float], second: Sequence[float]) -> str:
    """Pearson's and Spearman's correlation and the mean absolute difference of two judges' ratings, as text."""
    from scipy.stats import pearsonr, spearmanr

    varied = len(set(first)) > 1 and len(set(second)) > 1
    parts = [
        f"{name} {float(test(first, second).statistic):.2f}"
        for name, test in (("Pearson", pearsonr), ("Spearman", spearmanr))
        if varied
    ]
    difference = float(np.abs(np.subtract(first, second)).mean())
    return ", ".join([*parts, f"mean absolute difference {difference:.2f}", f"n={len(first)}"])
