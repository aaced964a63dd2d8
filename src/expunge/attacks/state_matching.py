"""State matching: optimised prompts that also restore the original's hidden states (arXiv:2502.01472)."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from expunge.attacks._objective import Goal, goals_of
from expunge.attacks._search import SearchConfig, SoftPromptConfig
from expunge.attacks._universal import (
    answer_slots,
    check_rows,
    drawn_rows,
    optimize_text,
    optimize_vectors,
    text_attempt,
    vector_attempts,
)
from expunge.attacks.base import ORIGINAL, Attack, AttackContext, Attempt, OutOfTime
from expunge.losses.activations import check_layer


class StateMatching(Attack):
    """The enhanced GCG with which FALCON was tested, and the same for soft prompts: a white-box upper bound.

    Loss: `-log p` of the given rows' answers plus `match` times the relative distance of some blocks' outputs from the
    original model's, at the positions that predict the answers. If an unlearned model's loss is flat (misdirected
    states, see arXiv:2408.06223, section 3.3), the distance still has a useful gradient. The additional search moves
    of the official code (insertions, deletions, swaps, a fluency term) are not implemented.
    """

    access = "weights"
    needs_original = True
    tries = ("adversarial (optimised) prompts",)

    class Config(Attack.Config):
        """Options of both optimisations and of the matching."""

        match: float = Field(1.0, gt=0, description="Weight of the distance to the original model's states")
        layers: tuple[int, ...] = Field(
            (), description="Matched blocks; empty: those at a quarter, a half and three quarters of the depth"
        )
        rows: int = Field(4, ge=1, description="Forget rows that the adversary is given, a seeded sample")
        longest: int = Field(10, ge=1, description="Tokens of a given row's answer that are the text's target")
        text_steps: int = Field(16, ge=0, description="Steps of the search for a text; 0: no text")
        text: SearchConfig = Field(default_factory=SearchConfig, description="Options of the search")
        vector_steps: int = Field(32, ge=0, description="Training steps of the vectors; 0: no vectors")
        vectors: SoftPromptConfig = Field(default_factory=SoftPromptConfig, description="Options of the vectors")
        points: int = Field(3, ge=1, description="Number of measurements along each optimisation")

    def check(self, context: AttackContext) -> None:
        """Refuse to train on every row, and layers that the model does not have."""
        check_rows(context, self.config.rows, f"attacks.{self.name}.rows")
        self._layers(context)

    def run(self, context: AttackContext) -> Iterator[Attempt]:
        """A text before the question, then vectors."""
        config, given = self.config, drawn_rows(context, self.config.rows, self.name)
        if config.text_steps:
            goals = self._goals(context, given, config.text.length, config.longest)
            name = f"{self.name}/text"
            optimized = optimize_text(
                context, given, goals, config.text, config.text_steps, config.points, name, config.match
            )
            yield text_attempt(optimized, given, "text")
            if optimized.cut:
                raise OutOfTime
        if config.vector_steps:
            goals = self._goals(context, given, config.vectors.length, None)
            name = f"{self.name}/vectors"
            optimized = optimize_vectors(
                context, goals, config.vectors, config.vector_steps, config.points, name, config.match
            )
            yield from vector_attempts(optimized, given, "vectors", "vectors, given rows")

    def _goals(self, context: AttackContext, given: list[int], length: int, longest: int | None) -> list[Goal]:
        slots = answer_slots(context, given, length, longest)
        layers = self._layers(context)
        key = f"{ORIGINAL}{self.name}/{layers}/{length}/{longest}/{given}"
        return context.cached(key, lambda: goals_of(slots, context.original(), layers))

    def _layers(self, context: AttackContext) -> list[int]:
        """Indices from 0.

        Raises:
            UserError: no such block.
        """
        count = len(context.model.blocks())
        chosen = self.config.layers or [count // 4, count // 2, 3 * count // 4]
        return sorted({check_layer(context.model, layer, f"attacks.{self.name}.layers") for layer in chosen})
