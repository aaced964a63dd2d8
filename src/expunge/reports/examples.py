"""The rows of items.parquet: the scores of each example and, if the user allowed it, the text of the answers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from expunge.core.errors import UserError
from expunge.core.records import ITEMS_FILE, Frozen
from expunge.reports.formats import SPLITS, ordered
from expunge.reports.metric_texts import leak_marks

KEYS = ("stage", "split", "id", "kind", "question", "answer", "generated", "reasoning", "samples")


class StoredAnswer(Frozen):
    """One example at one stage."""

    stage: str
    split: str
    id: str
    kind: str | None = None
    question: str | None = None
    answer: str | None = None
    generated: str | None = None
    reasoning: str | None = None
    samples: list[str] | None = None
    scores: dict[str, float] = Field(default_factory=dict)

    def holds(self, metric: str) -> bool:
        """Whether the metric found anything."""
        return self.scores.get(metric, 0.0) > 0


class Pair(Frozen):
    """One example at both stages."""

    split: str
    id: str
    before: StoredAnswer | None
    after: StoredAnswer | None

    @property
    def has_text(self) -> bool:
        """Whether the run stored questions and answers."""
        return any(item is not None and item.generated is not None for item in (self.before, self.after))

    @property
    def question(self) -> str:
        """The question, unchanged."""
        return next((item.question for item in (self.before, self.after) if item and item.question), "")

    @property
    def answer(self) -> str:
        """The stored answer."""
        return next((item.answer for item in (self.before, self.after) if item and item.answer), "")

    def signs(self, stage: str) -> list[str]:
        """Labels of an answer: leaks of the forget split, losses of the others; nothing without keywords."""
        item = self.before if stage == "before" else self.after
        if item is None:
            return []
        if self.split == "forget":
            return [sign for metric, sign in leak_marks().items() if item.holds(metric)]
        known = self.before is not None and self.before.holds("keyword_recall")
        return ["lost"] if stage == "after" and known and item.scores.get("keyword_recall") == 0 else []


def read_items(run_dir: Path) -> list[StoredAnswer]:
    """The items of a run; none when the run stored none.

    Raises:
        UserError: the file is damaged.
    """
    path = run_dir / ITEMS_FILE
    if not path.is_file():
        return []
    from pyarrow import ArrowException, parquet

    try:
        rows = parquet.read_table(path).to_pylist()
        return [_item(row) for row in rows]
    except (ArrowException, OSError, ValidationError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: cannot be read ({reason}); was it damaged, or written by another program?") from None


def _item(row: dict[str, Any]) -> StoredAnswer:
    scores = {
        name: float(value)
        for name, value in row.items()
        if name not in KEYS and isinstance(value, (int, float)) and not math.isnan(value)
    }
    return StoredAnswer(scores=scores, **{name: row.get(name) for name in KEYS})


def pair(items: Sequence[StoredAnswer]) -> list[Pair]:
    """Both stages of each example: the usual splits first, and within a split the examples with a sign after first."""
    stages: dict[tuple[str, str], dict[str, StoredAnswer]] = {}
    for item in items:
        stages.setdefault((item.split, item.id), {})[item.stage] = item
    pairs = [
        Pair(split=split, id=name, before=found.get("before"), after=found.get("after"))
        for (split, name), found in stages.items()
    ]
    order = ordered((one.split for one in pairs), SPLITS)
    return sorted(pairs, key=lambda one: (order.index(one.split), -len(one.signs("after"))))
