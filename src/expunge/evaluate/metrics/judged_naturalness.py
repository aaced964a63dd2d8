"""Judged naturalness: does the greedy answer read as a person would write, by language models? (arXiv:2510.19422)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from expunge.core.records import Better
from expunge.evaluate.base import Absent, Item, Metric, require_text
from expunge.evaluate.panel import Panel, PanelConfig


class JudgedNaturalness(Metric):
    """From 0, no language, to 5, fluent throughout, whatever it says; the prompt is our own reconstruction."""

    class Config(PanelConfig):
        """Options of judged naturalness."""

    needs = frozenset({"greedy"})
    opt_in = True

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._panel = Panel(config, "judged_naturalness")

    def prepare(self, evidence: Mapping[str, Sequence[Item]]) -> None:
        """Have all answers of a pass rated together."""
        prompts = [self._prompt(item) for items in evidence.values() for item in items if item.greedy]
        self._panel.rate(prompts)
        self.reference = self._panel.description(prompts)

    def value(self, item: Item, split: str) -> float:
        """In [0, 5]."""
        if not require_text(item.greedy, "greedy answer"):
            raise Absent("the model said nothing")
        return self._panel.rating(self._prompt(item))

    def better(self, split: str) -> Better:
        """Also on forget rows."""
        return "higher"

    def _prompt(self, item: Item) -> str:
        return self._panel.prompt(question=item.example.asked, response=item.greedy or "")
