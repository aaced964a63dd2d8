"""Scores of attempts: means with intervals, the recovered share, and the worst case over variants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from expunge.attacks.base import AttackContext, Attempt, CurvePoint, Value, numbers_of
from expunge.core.attack_record import MOST_WEIGHTS, RETRAINED, AttackPoint, AttackScore
from expunge.core.schema import Better, Score
from expunge.evaluate.rowwise import difference, mean_score, recovered

WORST = "worst case"


@dataclass
class Trial:
    """The attempts of one attack on one model, and why there are no more."""

    attempts: list[Attempt] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    failed: str | None = None
    traceback: str | None = None
    cut: str | None = None

    @property
    def answered(self) -> list[Attempt]:
        """Attempts that are judged from answers."""
        return [attempt for attempt in self.attempts if attempt.inside is None]

    def find(self, variant: str) -> Attempt | None:
        """The attempt of a variant, if it was made."""
        return next((one for one in self.attempts if one.variant == variant), None)

    def tested(self, threats: Sequence[str]) -> list[str]:
        """Those of an attack's threats that were tested: some row has a value, and enough weights were changed."""
        whole = [one for one in self._valued() if one.covered is None or one.covered >= MOST_WEIGHTS]
        found = [threat for one in whole for threat in (threats if one.tries is None else one.tries)]
        return list(dict.fromkeys(found))

    def partly(self, threats: Sequence[str]) -> dict[str, float]:
        """Threats that were tested on too few weights only -> the largest share of the weights that was changed."""
        tested = self.tested(threats)
        shares = [one.covered for one in self._valued() if one.covered is not None]
        return {threat: max(shares) for threat in threats if threat not in tested} if shares else {}

    def worst(self, plain: Sequence[Value] = ()) -> Attempt | None:
        """The most that any variant, or the plain question, extracted per row, at the cost of all variants.

        Args:
            plain: values of the same model asked directly, which any adversary can do; empty: not counted.

        Returns:
            None without variants that are judged from answers; a row without a number in all of them has none.
        """
        said = self.answered
        if not said:
            return None
        best: list[Value] = []
        for *values, asked in zip(
            *(one.knowledge for one in said), plain or [""] * len(said[0].knowledge), strict=True
        ):
            numbers = numbers_of(values)
            best.append(max([*numbers, *numbers_of([asked])]) if numbers else values[0])
        return Attempt(WORST, best, max(one.given for one in said), sum(one.steps for one in said))

    def only_worst(self, plain: Sequence[Value] = ()) -> Trial:
        """The worst case as the only attempt."""
        worst = self.worst(plain)
        return Trial(failed=self.failed, cut=self.cut) if worst is None else Trial([worst], [0.0])

    def _valued(self) -> list[Attempt]:
        return [one for one in self.attempts if numbers_of(one.knowledge)]


def mean(
    values: Sequence[Value], context: AttackContext, chance: float | None = None, better: Better = "lower"
) -> Score:
    """Mean over the attacked rows with its interval."""
    return mean_score(values, context.seed, chance, better, context.units)


def score(attempt: Attempt, seconds: float, controls: Mapping[str, Trial], context: AttackContext) -> AttackScore:
    """The scores of an attempt, beside those of the same variant on control models."""
    inside = attempt.inside
    chance, better = (inside.chance, inside.better) if inside else (None, "lower")
    others = {name: trial.find(attempt.variant) for name, trial in controls.items()}
    retrained = others.get(RETRAINED)
    return AttackScore(
        variant=attempt.variant,
        measure=inside.measure if inside else None,
        knowledge=mean(attempt.knowledge, context, chance, better),
        recovered=_recovered(attempt, context),
        controls={
            name: mean(other.knowledge, context, chance, better) if other else _missing(controls[name])
            for name, other in others.items()
        },
        excess=difference(attempt.knowledge, retrained.knowledge, context.seed, context.units) if retrained else None,
        given=attempt.given,
        steps=attempt.steps,
        covered=attempt.covered,
        seconds=round(seconds, 3),
        along=attempt.along,
        curve=_curve(attempt.curve, context),
        control_curves={name: _curve(other.curve, context) for name, other in others.items() if other and other.curve},
    )


def _recovered(attempt: Attempt, context: AttackContext) -> Score:
    inside = attempt.inside
    if inside is None:
        before, after = context.original_plain, context.unlearned_plain
        if not before:
            return Score(value=None, reason="the original model is not known here")
    else:
        before, after = inside.original, [inside.chance or 0.0] * len(attempt.knowledge)
        if not before:
            return Score(value=None, reason="the original model was not looked at")
    return recovered(before, after, attempt.knowledge, context.seed, context.units)


def _missing(trial: Trial) -> Score:
    return Score(value=None, reason=trial.failed or trial.cut or "no such variant")


def _curve(points: Sequence[CurvePoint], context: AttackContext) -> list[AttackPoint]:
    return [AttackPoint(at=point.at, knowledge=mean(point.knowledge, context)) for point in points]
