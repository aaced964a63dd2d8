"""Layers: train only the weights of chosen blocks and modules (arXiv:2403.03218)."""

from __future__ import annotations

from pydantic import Field

from expunge.core.errors import UserError
from expunge.core.records import Frozen
from expunge.data.splits import Splits
from expunge.localize._blocks import share_of_depth, window_below
from expunge.localize.base import Localizer, Selection
from expunge.models.base import LanguageModel
from expunge.models.module_names import parameter_names


class Layers(Localizer):
    """Blocks by index and modules by name, e.g. layers 5 to 7, `mlp.down_proj`.

    Modules are identified by name, not by position among a block's parameters, which differs between architectures.
    """

    class Config(Frozen):
        """Options of the choice."""

        layers: tuple[int, ...] = Field(
            (), description="Block indices from 0; negative counts from the end; empty: all"
        )
        depth: tuple[float, float] | None = Field(
            None, description="Blocks from one share of the depth up to another, e.g. 0.66 to 0.87; instead of layers"
        )
        top: int | float | None = Field(
            None, ge=0, description="Highest block: its index, or a share of the depth below 1.0; instead of layers"
        )
        window: int = Field(3, ge=1, description="With top: number of neighbouring blocks, the highest being top")
        modules: tuple[str, ...] = Field((), description="Module names within a block, e.g. mlp.down_proj; empty: all")

    def select(self, model: LanguageModel, splits: Splits, seed: int) -> Selection:
        """Parameters of the named modules in the named blocks.

        Raises:
            UserError: a block that does not exist, or a module name that a chosen block lacks.
        """
        chosen = self._chosen(len(model.blocks()))
        names = parameter_names(model, chosen, self.config.modules)
        return Selection(names, {"layers": chosen, "modules": list(self.config.modules)})

    def _chosen(self, num_layers: int) -> list[int]:
        given = [name for name in ("layers", "depth", "top") if getattr(self.config, name) not in ((), None)]
        if len(given) > 1:
            raise UserError(f"localize: {' and '.join(given)} both select blocks; give only one of them")
        if self.config.top is not None:
            return list(window_below(self._top(self.config.top, num_layers), self.config.window))
        if self.config.depth is None:
            named = {self._index(layer, num_layers) for layer in self.config.layers}
            return sorted(named) or list(range(num_layers))
        return list(share_of_depth(self.config.depth, num_layers))

    def _top(self, top: float, num_layers: int) -> int:
        if isinstance(top, int):
            return self._index(top, num_layers)
        if top >= 1:
            raise UserError(f"localize.top: a share of the depth below 1.0, or a whole number for a block; got {top}")
        return min(round(top * num_layers), num_layers - 1)

    @staticmethod
    def _index(layer: int, num_layers: int) -> int:
        if not -num_layers <= layer < num_layers:
            raise UserError(f"localize.layers: no layer {layer}; this model has layers 0 to {num_layers - 1}")
        return layer % num_layers
