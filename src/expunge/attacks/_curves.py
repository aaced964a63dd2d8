"""What curves of a strength, or of a number of steps, have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from expunge.attacks._weights import copies_of
from expunge.attacks.base import AttackContext, CurvePoint, Value
from expunge.models.temporary_weights import ChangeWeight, changed_weights


def strength_curve(
    context: AttackContext, strengths: Sequence[float], changes: Callable[[float], Sequence[ChangeWeight]], label: str
) -> tuple[list[CurvePoint], float]:
    """What the model says, plainly asked, with its weights changed by each strength.

    Args:
        context: the attack's.
        strengths: of the change.
        changes: from a strength to one change of the weights, or to several draws; a row's value is the mean over them.
        label: what to call it on the progress bar.

    Returns:
        One point for each strength, and the share of the weights of the decoder blocks that was changed.
    """
    points, covered = [], 1.0
    for strength in sorted(set(strengths)):
        draws = []
        for change in changes(strength):
            context.check_time()
            with changed_weights(context.model, change, copies_of(context)) as changed:
                covered = min(covered, changed)
                draws.append(context.ask_directly(f"{label} {strength:g}"))
        points.append(CurvePoint(strength, [_mean(values) for values in zip(*draws, strict=True)]))
    return points, covered


def strongest(curve: Sequence[CurvePoint]) -> CurvePoint:
    """The point that got most of all rows together; the first of several."""
    return max(curve, key=lambda point: total(point.knowledge))


def total(values: Sequence[Value]) -> float:
    """Sum over the rows that have a number."""
    return sum(value for value in values if not isinstance(value, str))


def milestones(steps: int, count: int) -> list[int]:
    """Numbers of steps after which a curve has a point: about evenly spread, `steps` the last one."""
    return sorted({max(1, round(steps * (place + 1) / count)) for place in range(count)})


def _mean(values: Sequence[Value]) -> Value:
    """Mean of a row's values; the reason where it has none."""
    numbers = [value for value in values if not isinstance(value, str)]
    return sum(numbers) / len(numbers) if numbers else values[0]
