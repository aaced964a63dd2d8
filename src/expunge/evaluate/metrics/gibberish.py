"""Gibberish: probability that the greedy answer is clean text, by a classifier (arXiv:2506.12618)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import Field

from expunge.core.records import Better, Frozen
from expunge.evaluate.base import Absent, Item, Metric, require_text
from expunge.evaluate.local_scorers import TextClassifier, Unavailable

_OPTION = "evaluate.options.gibberish"


class Gibberish(Metric):
    """Mean probability of the label for clean text: 1 is fluent, 0 gibberish.

    Which label that is, the classifier's own config says; OpenUnlearning takes the first.
    """

    class Config(Frozen):
        """Options of gibberish."""

        model: str = Field(
            "madhurjindal/autonlp-Gibberish-Detector-492513457",
            description="Text classifier: folder or hub id of any model with a label for clean text",
        )
        label: str = Field("clean", min_length=1, description="Its label for clean text, whatever the case")
        tokens: int = Field(32, ge=1, description="The classifier reads this many tokens of each answer")

    needs = frozenset({"greedy"})
    opt_in = True

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.reference = f"by {config.model}"
        self._clean: dict[str, float] = {}
        self._classifier: TextClassifier | None = None
        self._missing: str | None = None
        try:
            self._classifier = TextClassifier(config.model, config.label, f"{_OPTION}.model")
        except Unavailable as error:
            self._missing = f"no gibberish classifier: {error}"

    def prepare(self, evidence: Mapping[str, Sequence[Item]]) -> None:
        """Score all distinct answers of a pass together."""
        self._judge(item.greedy for items in evidence.values() for item in items)

    def value(self, item: Item, split: str) -> float:
        """In [0, 1]."""
        text = require_text(item.greedy, "greedy answer")
        if not text:
            raise Absent("empty answers")
        self._judge([text])
        if self._missing is not None:
            raise Absent(self._missing)
        if self._classifier is not None and (reason := self._classifier.cannot_read(text)):
            raise Absent(f"{reason}; name another: {_OPTION}.model")
        return self._clean[text]

    def better(self, split: str) -> Better:
        """A forgetful model should still speak, so higher everywhere."""
        return "higher"

    def _judge(self, texts: Iterable[str | None]) -> None:
        new = [text for text in dict.fromkeys(texts) if text and text not in self._clean]
        if self._classifier is None or self._missing is not None or not new:
            return
        try:
            self._clean.update(zip(new, self._classifier.probabilities(new, self.config.tokens), strict=True))
        except Unavailable as error:
            self._missing = f"no gibberish classifier: {error}"
