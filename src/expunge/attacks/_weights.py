"""Changing a model's weights for a while: training it, or putting an adapter on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from expunge.attacks.base import AttackContext
from expunge.models.base import LanguageModel
from expunge.models.batches import free_cached
from expunge.models.matrices import plain_weights
from expunge.models.merging import merge, merged_names
from expunge.models.weight_backup import WeightBackup, weight_backup

_CONTAINERS = (dict, list, set)


def copies_of(context: AttackContext) -> WeightBackup:
    """Copies of the attacked model's weights, which all attacks that change weights share."""
    return context.cached("weights", lambda: weight_backup(context.model.base))


@contextmanager
def lent(model: LanguageModel, kept: WeightBackup, *, trained: bool) -> Iterator[None]:
    """Within this block of code an adversary may do with the model as it likes; afterwards it is what it was.

    The weights are changed in their place and put back from their copies, so that there is never a second model in
    memory. An adapter is merged first, since that is what would be published.

    Args:
        model: any model.
        kept: copies of its weights; what they lack is added.
        trained: whether the weights themselves will be trained, and not only an adapter on them.

    Raises:
        DiskError: there is no room for the copies.
        ModelLost: the weights cannot be put back.
    """
    network, adapted = model.network, model.is_adapted
    modules = [(module, _attributes(module)) for module in network.modules()]
    parameters = [(one, one.requires_grad, one.grad, one.dtype) for one in network.parameters()]
    configs = [
        (config, config.tie_word_embeddings)
        for config in (model.base.config, model.base.config.get_text_config())
        if hasattr(config, "tie_word_embeddings")
    ]
    weights = dict(plain_weights(model))
    moved = weights.keys() if trained else weights.keys() & (merged_names(network) if adapted else ())
    widened = dict(model.widened)
    for name in moved:
        kept.keep(name, weights[name])
    try:
        if adapted:
            model.network, _ = merge(network)
        yield
    finally:
        model.network = network
        model.widened = widened
        for module, attributes in modules:
            _put_back(module, attributes)
        for config, tied in configs:
            config.tie_word_embeddings = tied
        dtypes = {}
        for parameter, trainable, gradient, dtype in parameters:
            parameter.requires_grad_(trainable)
            parameter.grad = gradient
            dtypes[parameter] = dtype
        for name in moved:
            kept.put_back(name, weights[name], dtypes[weights[name]])
        free_cached(model.device)


def _attributes(module: nn.Module) -> dict[str, tuple[Any, Any]]:
    """Every attribute of a module, and a copy of what is in those that hold others."""
    return {
        name: (value, value.copy() if isinstance(value, _CONTAINERS) else None) for name, value in vars(module).items()
    }


def _put_back(module: nn.Module, attributes: dict[str, tuple[Any, Any]]) -> None:
    own = vars(module)
    for name in own.keys() - attributes.keys():
        del own[name]
    for name, (value, content) in attributes.items():
        own[name] = value
        if isinstance(value, list):
            value[:] = content
        elif content is not None:
            value.clear()
            value.update(content)
