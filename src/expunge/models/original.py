"""Looking back at the original model while it is being trained, without a second one in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from expunge.models.base import LanguageModel


class OriginalWeights:
    """A copy of the weights that may move, taken while they are the original ones.

    Args:
        model: its trainable weights chosen, none moved yet.
    """

    def __init__(self, model: LanguageModel) -> None:
        self._parameters = model.trainable()
        self._others = [parameter.detach().clone() for parameter in self._parameters]

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Within this block the model is the original one; nothing may be trained in it."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        """Exchange storages: no third copy, and the current weights come back to the bit."""
        for place, parameter in enumerate(self._parameters):
            parameter.data, self._others[place] = self._others[place], parameter.data
