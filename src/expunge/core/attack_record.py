"""The record of attacks on a model."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from expunge.core.schema import Frozen, Score

MOST_WEIGHTS = 0.9
"""An attack that changes a smaller share of the weights of the decoder blocks has not tested the model."""
RETRAINED = "retrained"
"""The control that was never trained on the forget rows: attacks on it succeed by guessing or by teaching."""
REFUSAL = "refusal only"
"""The control that was only trained to refuse: what an attack cannot extract from it, it cannot from any model."""
UNTOUCHED = "original"
"""The control of attacks that damage a model: what the attacked original no longer states cannot be recovered."""

Access = Literal["prompts", "logits", "weights"]
"""Access of an adversary to a model; each level includes those before it."""


class AttackPoint(Frozen):
    """Result of one strength or length of an attack."""

    at: float
    knowledge: Score


class AttackScore(Frozen):
    """Result of one variant of an attack."""

    variant: str = Field(description="Short name; empty for an attack's only variant")
    measure: str | None = Field(
        None, description="What the number measures of internal states. Default: knowledge in answers"
    )
    knowledge: Score = Field(description="Mean over the attacked rows of the knowledge extracted, in [0, 1]")
    recovered: Score = Field(
        description="(attacked - unlearned) / (original - unlearned), paired by row; for internal measures "
        "(attacked - chance) / (original - chance)"
    )
    controls: dict[str, Score] = Field(default_factory=dict, description="Control model -> knowledge, same attack")
    excess: Score | None = Field(None, description="Knowledge minus that of the retrained control, paired by row")
    given: int = Field(0, description="Rows that the adversary needed")
    steps: int = Field(0, description="Optimizer or search steps")
    covered: float | None = Field(
        None,
        description="Share of the weights of the decoder blocks that were changed; the total includes norms, biases "
        "and routers. None: no weights are changed",
    )
    seconds: float
    along: str = Field("", description="The quantity that varies along the curve, with its unit")
    curve: list[AttackPoint] = Field(default_factory=list)
    control_curves: dict[str, list[AttackPoint]] = Field(default_factory=dict)


class AttackResult(Frozen):
    """Result of one attack on one model."""

    name: str
    access: Access
    options: dict[str, Any] = Field(default_factory=dict)
    tries: list[str] = Field(default_factory=list, description="Threats that it tested, see `Attack.tries`")
    partly: dict[str, float] = Field(
        default_factory=dict,
        description="Threat tested on too few weights to count -> share of the weights of the decoder blocks",
    )
    variants: list[AttackScore] = Field(default_factory=list)
    worst: AttackScore | None = Field(
        None,
        description="The most that any variant, or the plain question, extracted per row; none if equal to the only "
        "variant",
    )
    seconds: float = 0.0
    failed: str | None = Field(None, description="Why it failed or was not carried out")
    traceback: str | None = Field(None, description="Stack of an unexpected error, without the text of its message")
    cut: str | None = Field(None, description="What was left out because the time budget was exhausted")

    @property
    def covered(self) -> float | None:
        """Largest share of the weights of the decoder blocks that a variant changed; None if none changes weights."""
        return max((one.covered for one in self.variants if one.covered is not None), default=None)


class Robustness(Frozen):
    """Results of all attacks on one model."""

    rows: int = Field(description="Attacked forget rows")
    original: Score | None = Field(None, description="Knowledge of the original model, asked directly")
    unlearned: Score | None = Field(None, description="The same for the attacked model; none before any attack")
    controls: dict[str, Score] = Field(default_factory=dict, description="The same for each control model")
    attacks: list[AttackResult] = Field(default_factory=list)
    budget: float | None = Field(None, description="Time budget in seconds; none: no limit")
    seconds: float = 0.0
