"""Relearning: does fine-tuning on a few rows bring other rows back? (arXiv:2406.13356)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal

import torch
from pydantic import Field

from expunge.attacks._universal import milestones
from expunge.attacks._weights import backup_of, moved_share, restored, tuned
from expunge.attacks.base import GIVEN, Attack, AttackContext, Attempt, CurvePoint, Value
from expunge.core.errors import UserError
from expunge.core.memory import is_out_of_memory
from expunge.core.records import Frozen
from expunge.data.example import Example, holds_any
from expunge.models.config import LoraConfig

Kind = Literal["forget", "adjacent", "benign"]
Method = Literal["full", "lora"]


class Relearning(Attack):
    """Fine-tunes the model on some rows and asks about the others.

    forget: rows of the forget set. adjacent: other rows about the same subjects or, if there are none, about similar
    subjects (neighbours). benign: general knowledge or, if there is none, retain rows. Rows that were trained on, or
    whose keyword occurs in a training row, are not scored. Whatever a model that never knew the rows learns from the
    same steps was taught rather than recovered: compare with the retrained control (`--reference`).
    """

    class Config(Frozen):
        """Options of the fine-tuning."""

        kinds: tuple[Kind, ...] = Field(
            ("forget", "adjacent", "benign"), min_length=1, description="Training rows: forget, adjacent, benign"
        )
        methods: tuple[Method, ...] = Field(
            ("full", "lora"), min_length=1, description="full: all weights; lora: an adapter"
        )
        rows: tuple[int, ...] = Field((2, 8), min_length=1, description="Numbers of training rows")
        steps: int = Field(8, ge=1, description="Optimizer steps")
        looks: int = Field(3, ge=1, description="Number of measurements, evenly spaced up to the last step")
        batch_size: int = Field(8, ge=1, description="Rows per step")
        lr: float = Field(5e-5, gt=0, description="Learning rate of full fine-tuning")
        lora_lr: float = Field(1e-3, gt=0, description="Learning rate of the adapter")
        lora: LoraConfig = Field(default_factory=LoraConfig, description="Options of the adapter")

    access = "weights"
    tries = ("relearning on a few rows",)

    def run(self, context: AttackContext) -> Iterator[Attempt]:
        """One attempt per kind of rows, number of rows and method, with a curve over steps.

        If full fine-tuning does not fit into memory, the adapter's attempts are made before the error is raised.
        """
        too_large: Exception | None = None
        for kind in self.config.kinds:
            pool = self._pool(context, kind)
            for size in sorted(set(self.config.rows)):
                for method in self.config.methods:
                    if method == "full" and too_large is not None:
                        continue
                    try:
                        yield self._relearned(context, kind, pool[:size], method)
                    except UserError as error:  # the adapter may not fit the model; other methods may
                        yield Attempt(_named(kind, pool[:size], method), [str(error)] * len(context.rows))
                    except Exception as error:
                        if method != "full" or not is_out_of_memory(error):
                            raise
                        too_large = error.with_traceback(None)  # its frames hold the allocated memory
        if too_large is not None:
            raise too_large

    def _relearned(self, context: AttackContext, kind: Kind, given: Sequence[Example], method: Method) -> Attempt:
        config = self.config
        name = _named(kind, given, method)
        if not given:
            reason = f"there are no {kind} rows that keep the scored answers to themselves"
            return Attempt(f"{kind}, {method}", [reason] * len(context.rows))
        hidden = [_taught(row, given) for row in context.rows]
        asked = tuple(row for row, reason in zip(context.rows, hidden, strict=True) if reason is None)
        if not asked:
            return Attempt(name, [str(reason) for reason in hidden], given=len(given))
        wanted = milestones(config.steps, config.looks)
        lora = config.lora if method == "lora" else None
        curve = []
        with restored(context.model, backup_of(context), trained=lora is None):
            lr = config.lr if lora is None else config.lora_lr
            for step in tuned(context.model, given, config.steps, lr, config.batch_size, lora, context.seed):
                context.check_time()
                if step in wanted:
                    said = iter(replace(context, rows=asked).ask_directly(f"relearned: {name}"))
                    values: list[Value] = [next(said) if reason is None else reason for reason in hidden]
                    curve.append(CurvePoint(step, values))
            covered = moved_share(context.model)
        return Attempt(name, curve[-1].knowledge, len(given), config.steps, along="steps", curve=curve, covered=covered)

    def _pool(self, context: AttackContext, kind: Kind) -> list[Example]:
        """Rows of a kind in a seeded order, rows that are not attacked first."""
        splits = context.splits
        if kind == "forget":
            attacked = {row.id for row in context.rows}
            shuffled = self._shuffled(context, kind, splits.forget)
            return sorted(shuffled, key=lambda row: row.id in attacked)
        others = (*splits.neighbour, *splits.retain, *splits.general)
        subjects = {row.subject for row in splits.forget} - {None}
        if kind == "adjacent":
            rows = tuple(row for row in others if row.subject in subjects) or splits.neighbour
        else:
            rows = splits.general or tuple(row for row in splits.retain if row.subject not in subjects)
        return self._shuffled(context, kind, [row for row in rows if not _teaches(row, context.rows)])

    def _shuffled(self, context: AttackContext, kind: Kind, rows: Sequence[Example]) -> list[Example]:
        order = torch.randperm(len(rows), generator=context.generator(f"{self.name}/{kind}"))
        return [rows[index] for index in order.tolist()]


def _named(kind: Kind, given: Sequence[Example], method: Method) -> str:
    """`forget, 8 rows, lora`."""
    return f"{kind}, {len(given)} row{'s' if len(given) != 1 else ''}, {method}"


def _taught(row: Example, given: Sequence[Example]) -> str | None:
    """Why a row cannot be scored after training on others; None if it can."""
    if any(row.key == other.key for other in given):
        return GIVEN
    return "its keyword stands in a row that the adversary was given" if _contain_answer(given, row) else None


def _contain_answer(given: Sequence[Example], row: Example) -> bool:
    return any(holds_any(f"{other.asked} {other.answer or ''}", row.keywords) for other in given)


def _teaches(row: Example, attacked: Sequence[Example]) -> bool:
    """Whether training on a row would teach the answer of an attacked row."""
    return any(_contain_answer([row], other) for other in attacked)
