"""Temporary changes of a model's weights: by a strength, or by fine-tuning; afterwards the model is restored."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from expunge.attacks.base import AttackContext, CurvePoint, Value, numbers_of
from expunge.data.batch import collate
from expunge.data.example import Example
from expunge.models.adapter import add_lora
from expunge.models.base import LanguageModel
from expunge.models.batches import free_cached
from expunge.models.config import LoraConfig
from expunge.models.forward import Forward
from expunge.models.matrices import block_matrices, plain_weights, share_of_blocks
from expunge.models.merging import merge, merged_names
from expunge.models.temporary_weights import ChangeWeight, changed_weights
from expunge.models.weight_backup import WeightBackup, weight_backup

_CONTAINERS = (dict, list, set)


def backup_of(context: AttackContext) -> WeightBackup:
    """Copies of the attacked model's weights, shared by all attacks that change weights."""
    return context.cached("weights", lambda: weight_backup(context.model.base))


def strength_curve(
    context: AttackContext, strengths: Sequence[float], changes: Callable[[float], Sequence[ChangeWeight]], label: str
) -> tuple[list[CurvePoint], float]:
    """Knowledge that the model shows when asked directly with its weights changed by each strength.

    Args:
        context: of the attack.
        strengths: of the change.
        changes: from a strength to one change of the weights, or to several draws of it, which are averaged per row.
        label: text of the progress bar.

    Returns:
        One point per strength, and the share of the weights of the decoder blocks that was changed.
    """
    points, covered = [], 1.0
    for strength in sorted(set(strengths)):
        draws = []
        for change in changes(strength):
            context.check_time()
            with changed_weights(context.model, change, backup_of(context)) as changed:
                covered = min(covered, changed)
                draws.append(context.ask_directly(f"{label} {strength:g}"))
        points.append(CurvePoint(strength, [_mean_value(values) for values in zip(*draws, strict=True)]))
    return points, covered


def strongest(curve: Sequence[CurvePoint]) -> CurvePoint:
    """The first of the points with the highest sum over rows."""
    return max(curve, key=lambda point: sum(numbers_of(point.knowledge)))


def _mean_value(values: Sequence[Value]) -> Value:
    """Mean of the numbers; the first reason if there are none."""
    numbers = numbers_of(values)
    return sum(numbers) / len(numbers) if numbers else values[0]


def tuned(
    model: LanguageModel,
    rows: Sequence[Example],
    steps: int,
    lr: float,
    batch_size: int,
    lora: LoraConfig | None,
    seed: int,
) -> Iterator[int]:
    """Train on the answers of rows with AdamW at a constant rate; yields the number of steps after each step.

    Args:
        model: its network is trained in place.
        rows: K rows, cycled through in order.
        steps: number of optimizer steps.
        lr: learning rate.
        batch_size: maximum number of rows per step.
        lora: train this adapter on all matrices of the blocks. Default: train every weight.
        seed: of the adapter's random factor.
    """
    names = [name for name, _ in model.network.named_parameters()]
    if lora is None:
        model.freeze_but(names)
    else:
        add_lora(model, names, lora, seed)
    optimizer = torch.optim.AdamW(model.trainable(), lr=lr, weight_decay=0.0)
    sequences = [model.encoder.example(row) for row in rows]
    size = min(batch_size, len(sequences))
    with torch.enable_grad():
        for step in range(steps):
            places = [(step * size + place) % len(sequences) for place in range(size)]
            batch = collate([sequences[place] for place in places], places).to(model.device)
            loss = -Forward(model, batch).token_logp().mean()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()
            yield step + 1


def moved_share(model: LanguageModel) -> float:
    """Share of the weights of the decoder blocks that training changes, directly or through an adapter."""
    if model.is_adapted:
        return share_of_blocks(model, block_matrices(model).keys() & merged_names(model.network))
    return share_of_blocks(model, [name for name, weight in model.network.named_parameters() if weight.requires_grad])


@contextmanager
def restored(model: LanguageModel, backup: WeightBackup, *, trained: bool) -> Iterator[None]:
    """Restore the model bit-exactly at the end of this block of code, whatever was done to it inside.

    Weights are changed in place and restored from their backup, so that there is never a second model in memory. An
    adapter is merged first, since the merged model is what would be published.

    Args:
        model: any model.
        backup: copies of its weights; missing ones are added.
        trained: whether the weights themselves are trained, as opposed to only an adapter.

    Raises:
        DiskError: there is no room for the copies.
        ModelLost: the weights cannot be restored.
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
        backup.keep(name, weights[name])
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
            backup.put_back(name, weights[name], dtypes[weights[name]])
        free_cached(model.device)


def _attributes(module: nn.Module) -> dict[str, tuple[Any, Any]]:
    """Every attribute of a module; containers with a copy of their content."""
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
