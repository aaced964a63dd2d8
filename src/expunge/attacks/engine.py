"""Attacks carried out one after another on one model, and what they say together."""

from __future__ import annotations

import gc
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch

from expunge.attacks.base import ORIGINAL, Attack, AttackContext, Attempt, CurvePoint, OutOfTime, Value
from expunge.attacks.config import AttackConfig
from expunge.core import plugins
from expunge.core.attack_record import MOST_WEIGHTS, AttackPoint, AttackResult, AttackScore, Robustness
from expunge.core.errors import ModelLost, UserError
from expunge.core.memory import is_out_of_memory
from expunge.core.records import AttackRecord, DataPrint, Provenance
from expunge.core.schema import Better, Score
from expunge.core.validation import check
from expunge.data.example import Example
from expunge.data.splits import Splits
from expunge.evaluate.answer_kinds import Labeller
from expunge.evaluate.config import EvaluateConfig
from expunge.evaluate.evidence import sampled
from expunge.evaluate.measure import Measured
from expunge.evaluate.rowwise import difference, mean_score, recovered
from expunge.models.base import LanguageModel

FOLDER = "attacks"
RETRAINED = "retrained"
"""The control that never saw the forget rows; what an attack gets from it was guessed, or taught by the attack."""
REFUSAL = "refusal only"
"""The control that was only taught to refuse: what an attack does not get from it, it could not get from any model."""
UNTOUCHED = "original"
"""The control of attacks that harm a model: what is not said any more by the original either cannot come back."""
WORST = "worst case"
_FRAMES = 30
"""Innermost calls that the record keeps of an error."""

Loader = Callable[[], LanguageModel]


@dataclass
class _Tried:
    """What one attack got from one model."""

    attempts: list[Attempt] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    failed: str | None = None
    traceback: str | None = None
    cut: str | None = None

    def find(self, variant: str) -> Attempt | None:
        return next((one for one in self.attempts if one.variant == variant), None)


def load_attacks(names: Sequence[str], options: Mapping[str, Mapping[str, object]]) -> list[Attack]:
    """Attacks by name, in the given order.

    Raises:
        UserError: no such attack, or an option that it does not have; options of attacks that nobody asked for are
            checked too.
    """
    for name, own in options.items():
        check(_kind(name).Config, own, f"attacks.{name}")
    return [_kind(name)(check(_kind(name).Config, options.get(name, {}), f"attacks.{name}")) for name in names]


def chosen_attacks(config: AttackConfig) -> list[Attack]:
    """The attacks of a run.

    Raises:
        UserError: as `load_attacks`.
    """
    names = attack_names(only_default=True) if config.names is None else config.names
    return load_attacks(names if config.budget else (), config.options)


def run_context(
    model: LanguageModel,
    splits: Splits,
    config: EvaluateConfig,
    max_rows: int,
    seed: int,
    before: Measured,
    after: Measured,
) -> AttackContext:
    """What attacks on a run's model are given: the rows that were measured, and what was said of them.

    Args:
        model: the unlearned model.
        splits: all rows.
        config: how answers are asked for and judged.
        max_rows: forget rows that are attacked, at most.
        seed: of the run.
        before: what the original model said.
        after: what the unlearned model said.
    """
    labeller = Labeller(config.kinds)
    places = sampled(range(len(after.evidence["forget"])), max_rows, seed)
    plain = [
        [float(labeller.says(replace(item, greedy=item.said))) for item in items if item.said is not None]
        for items in ([measured.evidence["forget"][place] for place in places] for measured in (before, after))
    ]
    rows = tuple(after.evidence["forget"][place].example for place in places)
    return AttackContext(model, splits, rows, labeller, config, seed, original_plain=plain[0], unlearned_plain=plain[1])


def new_record(
    subject: str,
    models: Mapping[str, str],
    sha256: str | None,
    data: Mapping[str, DataPrint],
    context: AttackContext,
    made: Provenance,
) -> AttackRecord:
    """The record of attacks, before any is carried out."""
    config = context.config
    return AttackRecord(
        subject=subject,
        models=dict(models),
        sha256=sha256,
        data=dict(data),
        rows=[row.id for row in context.rows],
        asked={
            "max_new_tokens": config.max_new_tokens,
            "kinds": config.kinds.model_dump(mode="json"),
            "match": config.match,
            **context.model.encoder.unusual(),
        },
        seed=context.seed,
        provenance=made,
        robustness=Robustness(rows=len(context.rows)),
    )


def attack_names(only_default: bool = False) -> list[str]:
    """Shipped attacks, those that need least access first, then by rank."""
    order = ("prompts", "logits", "weights")
    names = [name for name in plugins.names(FOLDER) if not only_default or _kind(name).default]
    return sorted(names, key=lambda name: (order.index(_kind(name).access), _kind(name).rank, name))


def _kind(name: str) -> type[Attack]:
    return plugins.find(FOLDER, name, Attack)  # type: ignore[type-abstract]


def attack(
    attacks: Sequence[Attack],
    context: AttackContext,
    *,
    controls: Mapping[str, Loader] | None = None,
    budget: float | None = None,
    done: Sequence[AttackResult] = (),
    keep: Callable[[Robustness], object] = lambda _: None,
) -> Robustness:
    """Carry out attacks; one that fails, or whose time is over, is shown as such, and the others go on.

    Args:
        attacks: what to try.
        context: on what.
        controls: name -> how to load a model on which every attack is carried out too; the original is one more, where
            it can be loaded, for attacks that harm a model.
        budget: seconds for everything; None: no limit.
        done: attacks that an earlier call carried out; they are kept, and not repeated under the same name.
        keep: called with all there is after every attack.

    Raises:
        UserError: an attack cannot work with these rows or options; nothing was attacked then.
    """
    start = time.perf_counter()
    for one in attacks:
        one.check(context)
    if not context.unlearned_plain:
        context = replace(context, unlearned_plain=context.said())
    plain = {name: _control(context, loader).unlearned_plain for name, loader in (controls or {}).items()}
    shown = plain | ({UNTOUCHED: context.original_plain} if any(_harmed(one, context) for one in attacks) else {})
    timed = replace(context, deadline=None if budget is None else start + budget)
    card = Robustness(
        rows=len(context.rows),
        original=_mean(context.original_plain, context) if context.original_plain else None,
        unlearned=_mean(context.unlearned_plain, context),
        controls={name: _mean(values, context) for name, values in shown.items()},
        attacks=list(done),
        budget=budget,
    )
    for one in attacks:
        if one.name in {other.name for other in done}:
            continue
        found = _attacked(one, timed, controls or {}, plain)
        card = card.model_copy(
            update={"attacks": [*card.attacks, found], "seconds": round(time.perf_counter() - start, 3)}
        )
        keep(card)
    return card


def _control(context: AttackContext, loader: Loader, plain: Sequence[Value] = ()) -> AttackContext:
    """The same attack ground, with a control model in the place of the unlearned one."""
    kept = {name: value for name, value in context.kept.items() if name.startswith(ORIGINAL)}
    control = replace(context, model=loader(), unlearned_plain=plain, kept=kept)
    return control if plain else replace(control, unlearned_plain=control.said())


def _harmed(one: Attack, context: AttackContext) -> Loader | None:
    """The original, where an attack must be tried on it too."""
    return context.load_original if one.harms and context.original_plain else None


def _attacked(
    one: Attack, context: AttackContext, controls: Mapping[str, Loader], plain: Mapping[str, Sequence[Value]]
) -> AttackResult:
    start = time.perf_counter()
    if (original := _harmed(one, context)) is not None:
        controls, plain = {**controls, UNTOUCHED: original}, {**plain, UNTOUCHED: context.original_plain}
    tried = _try(one, lambda: context, context.rows)
    others = {}
    if tried.attempts:
        for name, loader in controls.items():
            others[name] = _try(one, partial(_control, context, loader, plain[name]), context.rows)
    broken = next(((name, other) for name, other in others.items() if other.traceback), None)
    if broken is not None and tried.failed is None:
        tried.failed, tried.traceback = f"on the control '{broken[0]}': {broken[1].failed}", broken[1].traceback
    said = [attempt for attempt in tried.attempts if attempt.inside is None]
    worst = None
    whole = _worst(said, context.unlearned_plain) if said else None
    if whole is not None and (len(said) > 1 or list(whole.knowledge) != list(said[0].knowledge)):
        asked = {name: values for name, values in plain.items() if name != UNTOUCHED}
        worst = _score(whole, sum(tried.seconds), _worst_of(others, asked), context)
    return AttackResult(
        name=one.name,
        access=one.access,
        options=one.config.model_dump(mode="json"),
        tries=_tested(one, tried.attempts),
        partly=_partly(one, tried.attempts),
        variants=[
            _score(attempt, seconds, others, context)
            for attempt, seconds in zip(tried.attempts, tried.seconds, strict=True)
        ],
        worst=worst,
        seconds=round(time.perf_counter() - start, 3),
        failed=tried.failed,
        traceback=tried.traceback,
        cut=tried.cut,
    )


def _tested(one: Attack, attempts: Sequence[Attempt]) -> list[str]:
    """What has been tested by those variants that have a value for any row and changed enough of the weights."""
    whole = [attempt for attempt in _valued(attempts) if attempt.covered is None or attempt.covered >= MOST_WEIGHTS]
    ways = [way for attempt in whole for way in (one.tries if attempt.tries is None else attempt.tries)]
    return list(dict.fromkeys(ways))


def _partly(one: Attack, attempts: Sequence[Attempt]) -> dict[str, float]:
    """What was only tried on a part of the weights."""
    tested = _tested(one, attempts)
    shares = [attempt.covered for attempt in _valued(attempts) if attempt.covered is not None]
    return {way: max(shares) for way in one.tries if way not in tested} if shares else {}


def _valued(attempts: Sequence[Attempt]) -> list[Attempt]:
    return [attempt for attempt in attempts if not all(isinstance(value, str) for value in attempt.knowledge)]


def _try(one: Attack, ground: Callable[[], AttackContext], rows: Sequence[Example]) -> _Tried:
    """Run one attack on one model to its end, its failure, or the end of its time; what it yielded before is kept."""
    found = _Tried()
    last = time.perf_counter()
    try:
        context = ground()
        context.check_time()
        with context.model.evaluating():
            for attempt in one.run(context):
                assert len(attempt.knowledge) == len(context.rows), f"{one.name}: not one value a row"
                now = time.perf_counter()
                found.attempts.append(attempt)
                found.seconds.append(attempt.seconds if attempt.seconds is not None else now - last)
                last = now
    except ModelLost:
        raise
    except OutOfTime:
        found.cut = "the time was over" if found.attempts else "not begun: the time was over"
    except UserError as error:
        found.failed = str(error).splitlines()[0]
    except Exception as error:
        found.failed = f"{type(error).__name__}: {_without_text(str(error), rows)}"
        if is_out_of_memory(error):
            place = "the rest was" if found.attempts else "it was"
            found.failed = f"{place} not run for lack of memory; run `expunge attack` on a device with more"
        found.traceback = "".join(traceback.format_tb(error.__traceback__, limit=-_FRAMES))
    if found.traceback:
        _free_memory()
    return found


def _without_text(message: str, rows: Sequence[Example]) -> str:
    """The first line of an error's message, shortened, and without the text of any row."""
    line = (message.splitlines() or [""])[0]
    hidden = {
        text for row in rows for text in (row.question, row.answer, row.text, *row.keywords) if text and len(text) > 2
    }
    for text in sorted(hidden, key=len, reverse=True):
        line = line.replace(text, "...")
    return line[:200]


def _free_memory() -> None:
    """Let go of what a failed attack held, e.g. a copy of the model that did not fit beside it."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _worst(attempts: Sequence[Attempt], plain: Sequence[Value] = ()) -> Attempt:
    """The most that any variant, or asking plainly, got of each row, at the cost of all.

    Args:
        attempts: variants that asked for answers; a row of which none has a number has none here.
        plain: what the same model says when asked plainly, which every adversary can do too; empty: not counted.
    """
    columns = zip(*(attempt.knowledge for attempt in attempts), plain or [""] * len(attempts[0].knowledge), strict=True)
    best: list[Value] = []
    for *tried, asked in columns:
        numbers = [value for value in tried if not isinstance(value, str)]
        also = [] if isinstance(asked, str) else [asked]
        best.append(max([*numbers, *also]) if numbers else tried[0])
    return Attempt(WORST, best, max(attempt.given for attempt in attempts), sum(attempt.steps for attempt in attempts))


def _worst_of(tried: Mapping[str, _Tried], plain: Mapping[str, Sequence[Value]]) -> dict[str, _Tried]:
    found = {}
    for name, one in tried.items():
        said = [attempt for attempt in one.attempts if attempt.inside is None]
        whole = [_worst(said, plain.get(name, ()))] if said else []
        found[name] = _Tried(whole, [0.0]) if whole else _Tried(failed=one.failed, cut=one.cut)
    return found


def _mean(
    values: Sequence[Value], context: AttackContext, chance: float | None = None, better: Better = "lower"
) -> Score:
    return mean_score(values, context.seed, chance, better, context.units)


def _score(attempt: Attempt, seconds: float, controls: Mapping[str, _Tried], context: AttackContext) -> AttackScore:
    inside = attempt.inside
    chance, better = (inside.chance, inside.better) if inside else (None, "lower")
    others = {name: tried.find(attempt.variant) for name, tried in controls.items()}
    retrained = others.get(RETRAINED)
    return AttackScore(
        variant=attempt.variant,
        measure=inside.measure if inside else None,
        knowledge=_mean(attempt.knowledge, context, chance, better),
        recovered=_recovered(attempt, context),
        controls={
            name: _mean(other.knowledge, context, chance, better) if other else _missing(controls[name])
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
        if not context.original_plain:
            return Score(value=None, reason="the original model is not known here")
        return recovered(
            context.original_plain, context.unlearned_plain, attempt.knowledge, context.seed, context.units
        )
    if not inside.original:
        return Score(value=None, reason="the original model was not measured")
    nothing = [inside.chance or 0.0] * len(attempt.knowledge)
    return recovered(inside.original, nothing, attempt.knowledge, context.seed, context.units)


def _missing(tried: _Tried) -> Score:
    return Score(value=None, reason=tried.failed or tried.cut or "no such variant")


def _curve(points: Sequence[CurvePoint], context: AttackContext) -> list[AttackPoint]:
    return [AttackPoint(at=point.at, knowledge=_mean(point.knowledge, context)) for point in points]
