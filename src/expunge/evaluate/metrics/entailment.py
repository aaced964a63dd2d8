"""Entailment: does the greedy answer imply the stored one, or follow from it, by an NLI model? (arXiv:2410.08109)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from expunge.core.records import Frozen
from expunge.evaluate.base import Absent, Item, Metric, original_text, require_text
from expunge.evaluate.local_scorers import EntailmentJudge, Unavailable
from expunge.evaluate.metrics._rouge import overlap

_OPTION = "evaluate.options.entailment.model"

Pair = tuple[str, str]
"""Premise and hypothesis."""


class Entailment(Metric):
    """Share of rows whose most likely label is entailment.

    On forget rows the greedy answer is the premise and the stored one the hypothesis: a leak inside a longer answer
    counts. On all others the stored answer is the premise: claims that it does not hold count against the model.

    The stored answer is the row's `golden_answer`, else its `original_answer`, else `answer`, as in the paper's code:
    a short name can entail no sentence. The overlap is always that with the answer that other metrics score.
    """

    class Config(Frozen):
        """Options of entailment."""

        model: str | None = Field(
            None, description="NLI model: folder or hub id, e.g. sileod/deberta-v3-base-tasksource-nli"
        )
        premise: Literal["by_split", "generated", "stored"] = Field(
            "by_split",
            description="by_split: the greedy answer on forget rows, the stored one on others; generated: the greedy "
            "answer on all rows, as in the real-world scenario of the paper's code; stored: the stored one",
        )
        min_overlap: float = Field(
            0.1,
            ge=0,
            le=1,
            description="A row of smaller ROUGE-L recall is not entailed, whatever the model says; 0: its raw label",
        )

    meaning = "Share of answers that imply the stored one (forget) or follow from it (others), by an NLI model."
    needs = frozenset({"greedy"})
    yes_or_no = True

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._judged: dict[Pair, bool] = {}
        self._judge: EntailmentJudge | None = None
        self._missing: str | None = None
        if config.model is None:
            self._missing = f"no NLI model named: set {_OPTION}"
            return
        self.reference = f"by {config.model}"
        try:
            self._judge = EntailmentJudge(config.model, _OPTION)
        except Unavailable as error:
            self._missing = f"no NLI model: {error}"

    def prepare(self, evidence: Mapping[str, Sequence[Item]]) -> None:
        """Judge all distinct pairs of a pass together."""
        asked = ((item, split) for split, items in evidence.items() for item in items)
        self._judge_all(pair for item, split in asked if self._overlaps(item) and (pair := self._pair(item, split)))

    def value(self, item: Item, split: str) -> float:
        """0 or 1."""
        require_text(item.greedy, "greedy answer")
        pair = self._pair(item, split)
        if pair is None:
            raise Absent("no answer for these rows")
        overlaps = self._overlaps(item)
        self._judge_all([pair] if overlaps else [])
        if self._missing is not None:
            raise Absent(self._missing)
        if self._judge is not None and (reason := next(filter(None, map(self._judge.cannot_read, pair)), None)):
            raise Absent(f"{reason}; name another: {_OPTION}")
        return float(overlaps and self._judged[pair])

    def _pair(self, item: Item, split: str) -> Pair | None:
        answer = item.example.golden_answer or original_text(item)
        if item.greedy is None or answer is None:
            return None
        premise = self.config.premise
        if premise == "by_split":
            premise = "generated" if split == "forget" else "stored"
        return (item.greedy, answer) if premise == "generated" else (answer, item.greedy)

    def _overlaps(self, item: Item) -> bool:
        answer = item.example.answer or item.continuation
        if item.greedy is None or answer is None:
            return False
        return bool(overlap(answer, item.greedy, "rougeL").recall >= self.config.min_overlap)

    def _judge_all(self, pairs: Iterable[Pair]) -> None:
        if self._judge is None or self._missing is not None:
            return
        new = [pair for pair in dict.fromkeys(pairs) if pair not in self._judged]
        if not new:
            return
        try:
            self._judged.update(zip(new, self._judge.entails(new), strict=True))
        except Unavailable as error:
            self._missing = f"no NLI model: {error}"
