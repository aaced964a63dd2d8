"""The contracts of evaluation: evidence about a row, row metrics and set metrics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from expunge.core.records import Better, Frozen, Score
from expunge.data.example import Example
from expunge.data.matching import DEFAULT, Match
from expunge.evaluate.config import Role
from expunge.models.generate import Scored
from expunge.numerics.intervals import Clusters, Numbers, weighted_mean

Need = Literal[
    "answer",
    "paraphrased_answer",
    "perturbed_answer",
    "moments",
    "choices",
    "greedy",
    "samples",
    "paraphrased_greedy",
    "gradient_norms",
    "whole_gradient_norms",
]
"""Kinds of evidence about a row; `moments` adds to scored answers mean and variance of log-probabilities and
the size of the first choice; `whole_gradient_norms` are those of a loss that counts the end token too."""


@dataclass(frozen=True)
class Item:
    """The evidence of one model about one row."""

    example: Example
    answer: Scored | None = None
    paraphrased_answer: Scored | None = None
    perturbed_answer: tuple[Scored, ...] = ()
    greedy: str | None = None
    """Greedy answer to the question (for a document: to its first quarter), without the reasoning before it; None also
    if the reasoning reached its limit before an answer."""
    greedy_ids: tuple[int, ...] | None = None
    """Its tokens, without the stop token."""
    greedy_ended: bool | None = None
    """Whether it ended by itself, by an end token or a stop string; False: it was cut at `max_new_tokens`, or its
    reasoning at `max_reasoning_tokens`. Of a document's continuation, which rarely ends so soon, it tells nothing. None
    in evidence that was kept before this was noted."""
    reasoning: str | None = None
    """The reasoning before that answer; None if there is none."""
    original_greedy: str | None = None
    """Greedy answer of the model as it was before the run."""
    samples: tuple[str, ...] = ()
    """Sampled answers, without reasoning; "" if that reached its limit."""
    samples_ended: tuple[bool, ...] = ()
    """For each of them, as `greedy_ended`."""
    sample_reasoning: tuple[str, ...] = ()
    """The reasoning before each of them; "" if there is none."""
    paraphrased_greedy: str | None = None
    """Greedy answer to the paraphrased question, without reasoning; None also if that reached its limit."""
    paraphrased_reasoning: str | None = None
    """The reasoning before it; None if there is none."""
    continuation: str | None = None
    """For a document: its true text after the prompt."""
    stored: str | None = None
    """The stored text that answers are compared with, if it is cut (`EvaluateConfig.reference_tokens`)."""
    choice_logp: tuple[float, ...] = ()
    """For a multiple-choice row: log-probability of each option's letter, summed over its tokens."""
    gradient_norms: Mapping[str, float] = field(default_factory=dict)
    """Norm `1`, `2` or `inf` -> mean over the weight tensors of the norm of the answer loss's gradient."""
    reference: Item | None = None
    """Evidence of the retrained reference about the same row, if there is one."""
    accepted: tuple[str, ...] = ()
    """The row's further answers, cut as `stored` is."""
    match: Match = DEFAULT
    """How keywords are matched (`EvaluateConfig.match`)."""

    @property
    def said(self) -> str | None:
        """The greedy answer with the reasoning before it: the whole visible output."""
        parts = [part for part in (self.reasoning, self.greedy) if part is not None]
        return "\n".join(parts) if parts else None


class Absent(Exception):
    """Raised by a metric on a row that lacks the evidence it needs."""


class Metric(ABC):
    """A number for each row, and how rows become one score. Sees evidence, and at most a judge model of its own."""

    class Config(Frozen):
        """Options of the metric."""

    needs: frozenset[Need] = frozenset()
    """The evidence that is collected for it."""
    knowledge: ClassVar[Literal["more", "less", "none"]] = "more"
    """Whether a higher value means more or less knowledge of the row."""
    yes_or_no: ClassVar[bool] = False
    """Whether every row is 0 or 1; such a score gets a Wilson interval: a bootstrap of all zeros has no width."""
    chance: float | None = None
    """Value of a model that knows nothing, if defined."""
    reference: str | None = None
    """Name of what the values depend on besides the row."""
    usual: bool = True
    """False if an option makes it another quantity, which then enters no aggregate."""
    opt_in: ClassVar[bool] = False
    """Computed only if named, or read by a set metric: expensive or niche."""
    title: ClassVar[str] = ""
    """Its name in reports; default: the file name with spaces. Reports read this and the following without an import,
    so that each must be a literal."""
    meaning: ClassVar[str] = ""
    """One sentence for the reader of a report; default: the idea in the file's first line."""
    headline: ClassVar[int | None] = None
    """Place among the metrics that reports show first; None: listed below them."""
    utility: ClassVar[bool] = False
    """Whether it measures what is kept of other knowledge; reports take the first such headline metric with values."""
    probe: ClassVar[str] = ""
    """What it tries on the forget rows, as reports name it, e.g. `paraphrased questions`; empty: no verdict uses it."""
    leak_mark: ClassVar[str] = ""
    """Label of a single answer in which it finds the fact, e.g. `leaks`; empty: answers are not labelled by it."""

    def __init__(self, config: Any) -> None:
        self.config = config

    def prepare(self, evidence: Mapping[str, Sequence[Item]]) -> None:  # noqa: B027
        """Batch work over all items of a pass, by split, before `value` is called for any of them."""

    @abstractmethod
    def value(self, item: Item, split: str) -> float:
        """The number of one row.

        Raises:
            Absent: the row lacks what the metric needs.
        """

    @classmethod
    def aggregate(cls, values: Numbers, weights: Numbers | None = None) -> Numbers:
        """One number from row values along the last axis: (..., n) -> (...); the mean, unless a metric overrides it.

        Args:
            values: of rows.
            weights: (D, n) how often each of n rows counts in D resamples, which gives (D,) numbers.
        """
        return weighted_mean(values, weights)

    def better(self, split: str) -> Better:
        """The wanted direction on a split: less knowledge of the forget rows, more of all others."""
        if self.knowledge == "none":
            return "lower"
        return "higher" if (self.knowledge == "more") == (split != "forget") else "lower"


class RowNumbers(NamedTuple):
    """The numbers of the rows that have one, in order."""

    numbers: Numbers
    clusters: Clusters | None = None
    """Cluster of each of these rows; None if unknown."""


SetValues = Mapping[Role, Mapping[str, RowNumbers]]
"""Role -> row metric -> numbers."""


def rows_of(values: SetValues | None, role: Role, metric: str) -> RowNumbers:
    """The numbers of a metric on the rows of a role; without any if there are no values of it."""
    return (values or {}).get(role, {}).get(metric, RowNumbers(np.array([])))


class SetMetric(ABC):
    """Scores over many rows: of forget rows against holdout rows, or of a model against the retrained one."""

    class Config(Frozen):
        """Options of the metric."""

    needs_values: tuple[str, ...] = ()
    """Row metrics that it reads; they are computed on the sets of its roles even if not configured."""
    needs_original: ClassVar[bool] = False
    """Whether it reads the original model's values."""
    roles: ClassVar[tuple[Role, ...]] = ("forget",)
    """Roles of the sets that it reads."""
    title: ClassVar[str] = ""
    """As `Metric.title`."""
    meaning: ClassVar[str] = ""
    """As `Metric.meaning`."""

    def __init__(self, config: Any) -> None:
        self.config = config

    @abstractmethod
    def scores(
        self, values: SetValues, reference: SetValues | None, seed: int, original: SetValues | None = None
    ) -> dict[str, Score]:
        """Name -> score; a value that cannot be computed is None, with the reason.

        Args:
            values: of the model that is measured.
            reference: of the model that never saw the forget rows, if there is one.
            seed: of intervals.
            original: of the model before unlearning, if known.
        """


def mean_nll(scored: Scored | None, what: str) -> float:
    """Mean token loss of a teacher-forced answer.

    Raises:
        Absent: the row has no such answer.
    """
    if scored is None:
        raise Absent(f"rows without {what}")
    return -sum(scored.logp) / len(scored.logp)


def original_text(item: Item) -> str | None:
    """The original model's answer as the row records it, or else the stored answer."""
    return item.example.original_answer or item.example.answer or item.continuation


def stored_text(item: Item) -> str:
    """The text that an answer is compared with: the stored answer, or a document's continuation, cut if configured.

    Raises:
        Absent: there is none.
    """
    return require_text(item.stored or item.example.answer or item.continuation, "answer")


def right_texts(item: Item) -> tuple[str, ...]:
    """All accepted texts, the stored one first; each cut if configured.

    Raises:
        Absent: there is none.
    """
    return (stored_text(item), *(item.accepted or item.example.accepted_answers))


def require_text(text: str | None, what: str) -> str:
    """The text, if the evidence has it.

    Raises:
        Absent: it does not.
    """
    if text is None:
        raise Absent(f"no {what} for these rows")
    return text
