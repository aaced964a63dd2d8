"""Random: a window of neighbouring blocks drawn by the seed, the baseline for other localizers."""

from __future__ import annotations

import random

from pydantic import Field

from expunge.core.records import Frozen
from expunge.data.splits import Splits
from expunge.localize._blocks import share_of_depth, window_below
from expunge.localize.base import Localizer, Selection
from expunge.models.base import LanguageModel
from expunge.models.module_names import parameter_names


class Random(Localizer):
    """The control for every localizer: the same number of blocks at a randomly chosen position."""

    class Config(Frozen):
        """Options of the draw."""

        draw: int = Field(0, ge=0, description="Different numbers draw different windows with the same seed")
        depth: tuple[float, float] = Field(
            (0.0, 1.0), description="The highest block is drawn from one share of the depth up to another"
        )
        window: int = Field(
            3, ge=1, description="Number of neighbouring blocks to train; fewer only in a smaller model"
        )
        modules: tuple[str, ...] = Field(
            ("mlp.down_proj",), description="Module names within a block to train; empty: all"
        )

    def select(self, model: LanguageModel, splits: Splits, seed: int) -> Selection:
        """Parameters of the named modules in a window that depends on seed and draw only.

        Draws 0, 1, 2... enumerate the possible windows in a random order, so that the first ones all differ.

        Raises:
            UserError: invalid shares of the depth, or a module name that a chosen block lacks.
        """
        num_layers = len(model.blocks())
        lowest = min(self.config.window, num_layers) - 1
        tops = [top for top in share_of_depth(self.config.depth, num_layers) if top >= lowest] or [lowest]
        order = random.Random(f"{seed}/localize/random").sample(tops, len(tops))
        layers = list(window_below(order[self.config.draw % len(order)], self.config.window))
        evidence = {"layers": layers, "modules": list(self.config.modules), "draw": self.config.draw}
        return Selection(parameter_names(model, layers, self.config.modules), evidence)
