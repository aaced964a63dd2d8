"""The splits of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from expunge.core.errors import UserError
from expunge.core.schema import SPLITS
from expunge.data.example import Example
from expunge.data.summary import DataSummary


@dataclass(frozen=True)
class Splits:
    """The data of one run. `forget` and `retain` are trained on; the others (all of `SPLITS`) are only measured."""

    forget: tuple[Example, ...]
    retain: tuple[Example, ...]
    neighbour: tuple[Example, ...] = ()
    """Same kind of subject as forget, never trained on."""
    general: tuple[Example, ...] = ()
    """Anything else that the model should still know."""
    holdout: tuple[Example, ...] = ()
    """Rows like those to forget that no model was trained on."""
    sources: dict[str, str] = field(default_factory=dict)
    """Split name -> where it came from, in the user's words."""
    understood: Mapping[str, tuple[DataSummary, ...]] = field(default_factory=dict, compare=False)
    """Split name -> how each of its data sets was read."""

    def named(self) -> Iterator[tuple[str, tuple[Example, ...]]]:
        """Name and rows of every split that has rows."""
        for name in SPLITS:
            if rows := getattr(self, name):
                yield name, rows

    def check(self) -> None:
        """Refuse splits that contradict each other.

        Raises:
            UserError: a forget row is also in another split.
        """
        forget = {row.key: row.id for row in self.forget}
        for name, rows in self.named():
            if name == "forget":
                continue
            for row in rows:
                if row.key in forget:
                    raise UserError(
                        f"data.{name}: row '{row.id}' is also in data.forget as '{forget[row.key]}' "
                        "(the same text but for case, spaces and how letters are encoded)"
                    )
