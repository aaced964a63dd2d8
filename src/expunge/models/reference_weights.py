"""The weights of the original model, or of another reference, without a second model in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from expunge.core.errors import UserError
from expunge.models.base import LanguageModel


class OriginalWeights:
    """A copy of the weights that may move, taken while they are the original ones.

    Args:
        model: its trainable weights chosen, none moved yet.
        others: other values for them, in the order of `model.trainable()`; they are taken over. Default: copies of
            the current values.
    """

    def __init__(self, model: LanguageModel, others: Sequence[Tensor] | None = None) -> None:
        self._parameters = model.trainable()
        self.others = list(others or [parameter.detach().clone() for parameter in self._parameters])
        """The values that the model does not have now."""

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Within this block the model is the original one; nothing may be trained in it."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    def swap(self) -> None:
        """Exchange storages: no third copy, and the current weights come back to the bit."""
        for place, parameter in enumerate(self._parameters):
            parameter.data, self.others[place] = self.others[place], parameter.data


def weights_of(reference: LanguageModel, model: LanguageModel) -> OriginalWeights:
    """What the trainable weights of a model are in another one, e.g. in the model before all earlier requests.

    Args:
        reference: the other model; not to be used afterwards, since its weights are taken over.
        model: its trainable weights chosen.

    Raises:
        UserError: the two differ in a weight that will not be trained, so that swapping could not give the reference.
    """
    theirs = dict(reference.network.named_parameters())
    others = []
    for name, parameter in model.network.named_parameters():
        other = theirs.get(name)
        if other is None or other.shape != parameter.shape:
            raise UserError(f"model.reference: '{reference.source}' has no weight {name} like that of the model")
        if parameter.requires_grad:
            others.append(other.detach().to(parameter))
        elif not torch.equal(other.to(parameter), parameter):
            raise UserError(
                f"model.reference: '{reference.source}' differs from the model in {name}, which this run does not train"
            )
    return OriginalWeights(model, others)
