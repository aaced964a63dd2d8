"""Judged similarity: does the greedy answer still say what the original did, by language models? (arXiv:2510.19422)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from expunge.core.records import Better
from expunge.evaluate.base import Absent, Item, Metric, original_text, require_text
from expunge.evaluate.llm_judge import HIGHEST
from expunge.evaluate.panel import Panel, PanelConfig

_NO_ORIGINAL = (
    "no answer of an original model to compare with: a run has one, and "
    'evaluate.options.judged_similarity.reference = "stored" needs none'
)


class JudgedSimilarity(Metric):
    """Success from 0 to 5: on forget rows 5 less the raw rating, so that a wholly different answer has 5.

    On all other rows the raw rating, so that the same meaning has 5. The paper plots success without saying so; that it
    inverts the prompt's scale is inferred, and the prompt is our own.
    """

    class Config(PanelConfig):
        """Options of judged similarity."""

        reference: Literal["original", "stored"] = Field(
            "original", description="Compare with the original model's greedy answer, or with the stored answer"
        )

    needs = frozenset({"greedy"})
    opt_in = True

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._panel = Panel(config, "judged_similarity")

    def prepare(self, evidence: Mapping[str, Sequence[Item]]) -> None:
        """Have all pairs of a pass rated together."""
        pairs = [(item, self._target(item)) for items in evidence.values() for item in items if item.greedy]
        prompts = [self._prompt(item, target) for item, target in pairs if target]
        self._panel.rate(prompts)
        self.reference = self._panel.description(prompts)

    def value(self, item: Item, split: str) -> float:
        """In [0, 5]."""
        text, target = require_text(item.greedy, "greedy answer"), self._target(item)
        if target is None:
            raise Absent(_NO_ORIGINAL if self.config.reference == "original" else "no answer for these rows")
        if not text or not target:
            raise Absent("the model said nothing" if not text else "the original model said nothing")
        raw = self._panel.rating(self._prompt(item, target))
        return HIGHEST - raw if split == "forget" else raw

    def better(self, split: str) -> Better:
        """Both forms are written so that higher is wanted."""
        return "higher"

    def _target(self, item: Item) -> str | None:
        if self.config.reference == "original":
            return item.original_greedy
        return original_text(item)

    def _prompt(self, item: Item, target: str) -> str:
        return self._panel.prompt(question=item.example.asked, original=target, response=item.greedy or "")
