"""What attacks on a model got back."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from expunge.core.schema import Frozen, Score

MOST_WEIGHTS = 0.9
"""An attack that changes less than this share of the weights of the decoder blocks has not tested the model."""

Access = Literal["prompts", "logits", "weights"]
"""What an adversary must have of a model; each includes those before."""


class AttackPoint(Frozen):
    """What one strength or length of an attack got."""

    at: float
    knowledge: Score


class AttackScore(Frozen):
    """One variant of an attack, carried out."""

    variant: str = Field(description="Short name; empty for an attack's only variant")
    measure: str | None = Field(None, description="What the number tells of knowledge inside; none: what was said")
    knowledge: Score = Field(description="Mean over the attacked rows of what the attack got of each, in [0, 1]")
    recovered: Score = Field(
        description="(attacked - unlearned) / (original - unlearned), paired by row; of knowledge inside: "
        "(attacked - chance) / (original - chance)"
    )
    controls: dict[str, Score] = Field(default_factory=dict, description="Control model -> knowledge, same attack")
    excess: Score | None = Field(None, description="Knowledge less that got from the retrained control, row by row")
    given: int = Field(0, description="Rows that the adversary needed")
    steps: int = Field(0, description="Optimizer or search steps")
    covered: float | None = Field(
        None,
        description="Share of the weights of the decoder blocks that were changed, of all there: norms, biases and "
        "routers too; none: it changes no weights",
    )
    seconds: float
    along: str = Field("", description="What varies along the curve, with its unit")
    curve: list[AttackPoint] = Field(default_factory=list)
    control_curves: dict[str, list[AttackPoint]] = Field(default_factory=dict)


class AttackResult(Frozen):
    """One attack on one model."""

    name: str
    access: Access
    options: dict[str, Any] = Field(default_factory=dict)
    tries: list[str] = Field(default_factory=list, description="What has been tested by it, in the verdict's words")
    partly: dict[str, float] = Field(
        default_factory=dict,
        description="What it tried on too few weights to have tested it -> share of the weights of the decoder blocks",
    )
    variants: list[AttackScore] = Field(default_factory=list)
    worst: AttackScore | None = Field(
        None,
        description="The most that any variant, or asking plainly, got of each row; none if a single variant says it",
    )
    seconds: float = 0.0
    failed: str | None = Field(None, description="Why it broke off, or was not carried out at all")
    traceback: str | None = Field(
        None, description="Of an error that is nobody's choice: where it happened, without the message's text"
    )
    cut: str | None = Field(None, description="What was left out because the time was over")

    @property
    def covered(self) -> float | None:
        """The largest share of the weights of the decoder blocks that any variant changed; None: none changes any."""
        return max((one.covered for one in self.variants if one.covered is not None), default=None)


class Robustness(Frozen):
    """What survived the attacks on one model."""

    rows: int = Field(description="Forget rows that were attacked")
    original: Score | None = Field(None, description="Knowledge of the original model, asked plainly")
    unlearned: Score | None = Field(None, description="The same of the model under attack; none: nothing is done yet")
    controls: dict[str, Score] = Field(default_factory=dict, description="The same of each control model")
    attacks: list[AttackResult] = Field(default_factory=list)
    budget: float | None = Field(None, description="Seconds that were allowed; none: no limit")
    seconds: float = 0.0
