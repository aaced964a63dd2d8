"""The attack engine: carries out attacks one after another on one model and scores them."""

from __future__ import annotations

import gc
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch

from expunge.attacks._scores import Trial, mean, score
from expunge.attacks.base import ORIGINAL, Attack, AttackContext, OutOfTime, Value
from expunge.attacks.config import AttackConfig
from expunge.core import plugins
from expunge.core.attack_record import UNTOUCHED, AttackResult, Robustness
from expunge.core.errors import ModelLost, UserError
from expunge.core.memory import is_out_of_memory
from expunge.core.records import AttackRecord, DataPrint, Provenance
from expunge.core.validation import check
from expunge.data.example import Example
from expunge.data.splits import Splits
from expunge.evaluate.answer_kinds import Labeller
from expunge.evaluate.config import EvaluateConfig
from expunge.evaluate.evidence import sampled
from expunge.evaluate.measure import Measured
from expunge.models.base import LanguageModel

FOLDER = "attacks"
_FRAMES = 30
"""Innermost stack frames of an error that the record keeps."""

Loader = Callable[[], LanguageModel]


def load_attacks(names: Sequence[str], options: Mapping[str, Mapping[str, object]]) -> list[Attack]:
    """Attacks by name, in the given order.

    Raises:
        UserError: an unknown attack or option; options of attacks that are not in `names` are checked too.
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
    """The context of attacks on a run's model: rows that were measured, and both models' answers to them.

    Args:
        model: the unlearned model.
        splits: all rows.
        config: how answers are generated and judged.
        max_rows: maximum number of attacked forget rows.
        seed: of the run.
        before: measurement of the original model.
        after: measurement of the unlearned model.
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
    """The record of attacks before any is carried out."""
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
    """Shipped attacks, ordered by access, then by rank."""
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
    """Carry out attacks; one that fails or exceeds the time budget is recorded as such, and the others continue.

    Args:
        attacks: the attacks, in order.
        context: the attacked model and its rows.
        controls: name -> loader of a model on which every attack is repeated; the original model, if it can be loaded,
            is a further control of attacks that damage a model.
        budget: seconds for all attacks. Default: no limit.
        done: results of earlier calls; they are kept, and attacks of the same name are not repeated.
        keep: called with the results so far after every attack.

    Raises:
        UserError: an attack cannot work with these rows or options; no attack was carried out.
    """
    start = time.perf_counter()
    for one in attacks:
        one.check(context)
    if not context.unlearned_plain:
        context = replace(context, unlearned_plain=context.ask_directly())
    plain = {name: _control(context, loader).unlearned_plain for name, loader in (controls or {}).items()}
    shown = plain | ({UNTOUCHED: context.original_plain} if any(_harmed(one, context) for one in attacks) else {})
    timed = replace(context, deadline=None if budget is None else start + budget)
    card = Robustness(
        rows=len(context.rows),
        original=mean(context.original_plain, context) if context.original_plain else None,
        unlearned=mean(context.unlearned_plain, context),
        controls={name: mean(values, context) for name, values in shown.items()},
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
    """The same context with a control model instead of the unlearned one."""
    shared = {name: value for name, value in context.cache.items() if name.startswith(ORIGINAL)}
    control = replace(context, model=loader(), unlearned_plain=plain, cache=shared)
    return control if plain else replace(control, unlearned_plain=control.ask_directly())


def _harmed(one: Attack, context: AttackContext) -> Loader | None:
    """Loader of the original model, if the attack must be repeated on it."""
    return context.load_original if one.harms and context.original_plain else None


def _attacked(
    one: Attack, context: AttackContext, controls: Mapping[str, Loader], plain: Mapping[str, Sequence[Value]]
) -> AttackResult:
    start = time.perf_counter()
    if (original := _harmed(one, context)) is not None:
        controls, plain = {**controls, UNTOUCHED: original}, {**plain, UNTOUCHED: context.original_plain}
    trial = _try(one, lambda: context, context.rows)
    others = {}
    if trial.attempts:
        for name, loader in controls.items():
            others[name] = _try(one, partial(_control, context, loader, plain[name]), context.rows)
    broken = next(((name, other) for name, other in others.items() if other.traceback), None)
    if broken is not None and trial.failed is None:
        trial.failed, trial.traceback = f"on the control '{broken[0]}': {broken[1].failed}", broken[1].traceback
    worst = trial.worst(context.unlearned_plain)
    single = len(trial.answered) == 1 and worst is not None and worst.knowledge == list(trial.answered[0].knowledge)
    worst_others = {name: other.only_worst(() if name == UNTOUCHED else plain[name]) for name, other in others.items()}
    return AttackResult(
        name=one.name,
        access=one.access,
        options=one.config.model_dump(mode="json"),
        tries=trial.tested(one.tries),
        partly=trial.partly(one.tries),
        variants=[
            score(attempt, seconds, others, context)
            for attempt, seconds in zip(trial.attempts, trial.seconds, strict=True)
        ],
        worst=None if worst is None or single else score(worst, sum(trial.seconds), worst_others, context),
        seconds=round(time.perf_counter() - start, 3),
        failed=trial.failed,
        traceback=trial.traceback,
        cut=trial.cut,
    )


def _try(one: Attack, load: Callable[[], AttackContext], rows: Sequence[Example]) -> Trial:
    """Run one attack on one model until it ends, fails or exceeds its time; attempts that it yielded are kept."""
    found = Trial()
    last = time.perf_counter()
    try:
        context = load()
        context.check_time()
        with context.model.evaluating():
            for attempt in one.run(context):
                assert len(attempt.knowledge) == len(context.rows), f"{one.name}: expected one value per row"
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
    """First line of an error message, shortened, with the text of rows removed."""
    line = (message.splitlines() or [""])[0]
    hidden = {
        text for row in rows for text in (row.question, row.answer, row.text, *row.keywords) if text and len(text) > 2
    }
    for text in sorted(hidden, key=len, reverse=True):
        line = line.replace(text, "...")
    return line[:200]


def _free_memory() -> None:
    """Free what a failed attack held, e.g. a second copy of the model."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
