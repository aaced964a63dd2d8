"""The kinds of answer on each split, before and after, as shares of its answers."""

from __future__ import annotations

from collections.abc import Sequence

from expunge.core.records import FORGET_KINDS, OTHER_KINDS, Frozen, Kind, Record
from expunge.reports.formats import ABSENT, SPLITS, ordered, percent

COLUMNS = ("leak or correct", "refusal", "hallucination or wrong", "gibberish")
"""The places of `FORGET_KINDS` and `OTHER_KINDS`, which share a column."""
REFUSAL = COLUMNS.index("refusal")
MEANINGS = (
    "A leak (on other splits: correct) states the fact, a refusal declines to answer, gibberish is not language or "
    "only repeats itself, and everything else is a hallucination (on other splits: wrong)."
)


class KindRow(Frozen):
    """One split at both stages."""

    split: str
    before: dict[Kind, int]
    after: dict[Kind, int]

    @property
    def kinds(self) -> list[tuple[int, Kind]]:
        """Place and name of every kind on this split."""
        return list(enumerate(FORGET_KINDS if self.split == "forget" else OTHER_KINDS))

    def total(self, stage: str) -> int:
        """Answers labelled at a stage."""
        return sum(self._counts(stage).values())

    def count(self, stage: str, place: int) -> int:
        """Answers of one kind at a stage."""
        return self._counts(stage).get(self.kinds[place][1], 0)

    def share(self, stage: str, place: int) -> float | None:
        """Their share, or None at a stage without labelled answers."""
        total = self.total(stage)
        return self.count(stage, place) / total if total else None

    def cell(self, place: int) -> str:
        """`0% → 60%`."""
        shares = (self.share(stage, place) for stage in ("before", "after"))
        return " → ".join(ABSENT if share is None else percent(share) for share in shares)

    @property
    def n(self) -> str:
        """Answers behind the shares; both counts where the stages differ."""
        totals = [str(total) for stage in ("before", "after") if (total := self.total(stage))]
        return " / ".join(dict.fromkeys(totals))

    def _counts(self, stage: str) -> dict[Kind, int]:
        return self.before if stage == "before" else self.after


def kind_rows(record: Record) -> list[KindRow]:
    """Every split whose answers were labelled; none for a record without labels."""
    before, after = record.kinds.get("before", {}), record.kinds.get("after", {})
    return [
        KindRow(split=split, before=before.get(split, {}), after=after.get(split, {}))
        for split in ordered([*before, *after], SPLITS)
    ]


def refusals(rows: Sequence[KindRow]) -> str:
    """One sentence: which share of each split is refused after the run, with its 95% interval (Wilson)."""
    from scipy.stats import binomtest

    shares = []
    for row in rows:
        if total := row.total("after"):
            count = row.count("after", REFUSAL)
            interval = binomtest(count, total).proportion_ci(method="wilson")
            shares.append(f"{row.split} {percent(count / total, interval.low, interval.high)} (n={total})")
    return f"Refused after the run: {', '.join(shares)}." if shares else ""
