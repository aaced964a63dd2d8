"""The contract of an edit: a change of the weights that takes no training step on the two losses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

from expunge.core.records import Frozen
from expunge.losses.base import Setup

Advance = Callable[[float], None]
"""Reports progress: the share of the edit that was done since the last call."""


class Edit(ABC):
    """Changes the trainable weights once, before training starts; a run of 0 epochs is the edit alone.

    The guard measures the model before and after the edit, and undoes an edit that costs too much utility.
    """

    class Config(Frozen):
        """Options of the edit."""

    changes: ClassVar[bool] = True
    """Whether there is anything to apply; false only for the plug-in `none`."""

    def __init__(self, config: Any) -> None:
        self.config = config
        self.logs: dict[str, float] = {}
        """Values that describe what was done; the run logs them as those of step 0."""
        self.warnings: list[str] = []
        """What the reader of a report should know before trusting the run; whole sentences."""

    def check(self, forget: Setup, retain: Setup) -> None:  # noqa: B027 - most edits take any model and rows
        """Called before anything is written, while the model is the original one.

        Args:
            forget: the model and the rows to forget.
            retain: the model and the rows to keep, less those that the guard measures.

        Raises:
            UserError: weights or rows that this edit cannot use.
        """

    @abstractmethod
    def apply(self, forget: Setup, retain: Setup, advance: Advance) -> None:
        """Change the trainable weights in place; all others stay as they are.

        Args:
            forget: as in `check`.
            retain: as in `check`.
            advance: where to report progress.
        """
