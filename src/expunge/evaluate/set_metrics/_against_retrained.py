"""An attack's AUC set against that of the retrained model."""

from __future__ import annotations

from collections.abc import Callable

from pydantic import Field

from expunge.core.records import Frozen, Score
from expunge.evaluate.base import SetValues
from expunge.evaluate.set_metrics._auc import auc, auc_draws, sides
from expunge.numerics.intervals import Numbers, percentiles

OU_TINY = 1e-10
"""What OpenUnlearning adds to the denominator."""


class AgainstRetrainedConfig(Frozen):
    """Options of a comparison of AUCs."""

    attack: str = Field("mia_min_k", pattern="^mia_", description="Whose AUC is compared: a row metric mia_*")
    assumed_auc: float | None = Field(
        None,
        ge=0,
        le=1,
        description="AUC of the retrained model where no reference is given; OpenUnlearning takes 0.5; none: the score "
        "is then absent",
    )
    ou_compat: bool = Field(
        False,
        description="Give OpenUnlearning's value where its code departs from the definition: 1e-10 is added to the "
        "denominator, which may then be 0",
    )


def against_retrained(
    config: AgainstRetrainedConfig,
    values: SetValues,
    reference: SetValues | None,
    seed: int,
    gap: Callable[[Numbers, Numbers], tuple[Numbers, Numbers]],
) -> Score:
    """`100 * numerator / denominator`, in percent, with an interval over the rows of both models.

    Args:
        config: which attack.
        values: of the model.
        reference: of the retrained model.
        seed: of the resampled rows; the same rows are drawn for both models where they have equally many.
        gap: AUC of the model and of the retrained one to numerator and denominator.
    """
    mine = sides(values, config.attack)
    if isinstance(mine, str):
        return Score(value=None, reason=mine, reference="retrained")
    theirs = sides(reference, config.attack, "retrained reference: ")
    name = "retrained"
    draws = auc_draws(mine, seed)
    if not isinstance(theirs, str):
        level, level_draws = auc(theirs), auc_draws(theirs, seed)
    elif reference is None and config.assumed_auc is not None:
        name = f"an assumed AUC of {config.assumed_auc:g}"
        level, level_draws = config.assumed_auc, draws * 0 + config.assumed_auc
    else:
        return Score(value=None, reason=theirs, reference=name)
    tiny = OU_TINY if config.ou_compat else 0.0
    above, below = gap(draws * 0 + auc(mine), draws * 0 + level)
    if (below + tiny <= 0).any():
        return Score(value=None, reason="the retrained model's AUC leaves nothing to divide by", reference=name)
    above_draws, below_draws = gap(draws, level_draws)
    kept = below_draws + tiny > 0
    low, high = percentiles(100 * above_draws[kept] / (below_draws[kept] + tiny))
    return Score(
        value=float(100 * above[0] / (below[0] + tiny)),
        low=low,
        high=high,
        n=mine.num_rows,
        clusters=mine.clusters,
        chance=0.0,
        reference=name,
    )
