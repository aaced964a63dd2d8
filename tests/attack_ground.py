"""An attack's ground on tiny models: what every test of an attack needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from expunge.attacks.base import Attack, AttackContext, Attempt
from expunge.core.plugins import find
from expunge.core.validation import check
from expunge.data.example import Example
from expunge.data.splits import Splits
from expunge.evaluate.answer_kinds import Labeller
from expunge.evaluate.config import EvaluateConfig
from expunge.models.base import LanguageModel
from expunge.models.config import ModelConfig
from expunge.models.load import load_model

Rows = dict[str, tuple[Example, ...]]
ANSWER_TOKENS = 24


def load(folder: Path) -> LanguageModel:
    """A model as an attack gets it."""
    return load_model(ModelConfig(name=str(folder)))


def ground(
    model: LanguageModel,
    examples: dict[str, tuple[Example, ...]],
    original: Callable[[], LanguageModel] | None = None,
    rows: Sequence[Example] | None = None,
    **more: Any,
) -> AttackContext:
    """A context around a model, asked plainly already, and around the original where there is one."""
    config = EvaluateConfig(max_new_tokens=ANSWER_TOKENS)
    splits = Splits(examples["forget"], examples["retain"], examples.get("neighbour", ()))
    chosen = tuple(rows or examples["forget"])
    context = AttackContext(model, splits, chosen, Labeller(config.kinds), config, load_original=original, **more)
    known = AttackContext(original(), splits, chosen, context.labeller, config).ask_directly() if original else ()
    return AttackContext(**{**vars(context), "original_plain": known, "unlearned_plain": context.ask_directly()})


def build(name: str, **options: Any) -> Attack:
    """An attack with options."""
    kind = find("attacks", name, Attack)  # type: ignore[type-abstract]
    return kind(check(kind.Config, options, name))


def carried_out(context: AttackContext, name: str, **options: Any) -> dict[str, Attempt]:
    """Variant -> attempt."""
    return {attempt.variant: attempt for attempt in build(name, **options).run(context)}


def share(attempt: Attempt) -> float:
    """Mean over the rows that have a number."""
    numbers = [value for value in attempt.knowledge if not isinstance(value, str)]
    return sum(numbers) / len(numbers)
