"""Parameters by the names of the modules that hold them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from expunge.core.errors import UserError, near
from expunge.models.base import LanguageModel
from expunge.models.feed_forward import feed_forward_outputs

_FEED_FORWARD = ("mlp.down_proj", "mlp.c_proj", "mlp.dense_4h_to_h", "mlp.fc2")
"""Any of these names selects a block's feed-forward output matrices, whatever the architecture calls them."""


def parameter_names(model: LanguageModel, layers: Iterable[int], modules: Sequence[str]) -> tuple[str, ...]:
    """Names of the parameters of some modules in some blocks, in the model's order.

    Args:
        model: any model.
        layers: block indices.
        modules: names within a block of modules or single parameters, e.g. `mlp.experts.down_proj`; empty: whole
            blocks. If a block has no `mlp.down_proj`, the name selects its feed-forward output matrices, including
            those of all experts.

    Raises:
        UserError: a chosen block has no module of that name.
    """
    blocks = model.blocks()
    names = []
    for index in layers:
        prefix, block = blocks[index]
        parameters = [name for name, _ in block.named_parameters()]
        wanted = [name for module in modules for name in _resolved(model, index, module, parameters)] or [""]
        names += [f"{prefix}.{name}" for name in parameters if any(_within(name, module) for module in wanted)]
    return tuple(names)


def _resolved(model: LanguageModel, index: int, module: str, parameters: Sequence[str]) -> Sequence[str]:
    """The names that a module has in this architecture."""
    if any(_within(name, module) for name in parameters):
        return [module]
    if module in _FEED_FORWARD and (found := feed_forward_outputs(model)[index]):
        return found
    known = {name.rpartition(".")[0] for name in parameters} | {*parameters} - {""}
    raise UserError(f"localize.modules: no module '{module}' in {model.blocks()[index][0]}{near(module, known)}")


def _within(parameter: str, module: str) -> bool:
    return not module or parameter == module or parameter.startswith(f"{module}.")
