"""Progress as a parameter: stages report to a `Progress`, the caller decides whether anything is shown."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class Bar:
    """One running task. This one is silent."""

    def advance(self, amount: float = 1) -> None:
        """Report `amount` more units as done."""

    def note(self, text: str) -> None:
        """Show a short text beside the bar, e.g. the current loss."""


class Progress:
    """Receives reports of stages. This one is silent; that of the command line draws bars."""

    @contextmanager
    def bar(self, label: str, total: float) -> Iterator[Bar]:
        """A task of `total` units."""
        yield Bar()

    def say(self, text: str) -> None:
        """One line for the user."""

    def quote(self, text: str, without: str) -> None:
        """One line for the user that quotes data: `text` where only people see it, `without` where it may be kept."""
        self.say(without)


SILENT = Progress()
