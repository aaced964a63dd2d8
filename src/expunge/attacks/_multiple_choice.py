"""Rows as multiple-choice questions, and one forward pass over their answers that logit lens and probe share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import torch
from torch import Tensor

from expunge.attacks.base import ORIGINAL, AttackContext, Value
from expunge.core.errors import UserError
from expunge.data.encode import Encoded, Encoder
from expunge.data.example import Example, holds_any
from expunge.data.matching import cut_at
from expunge.data.text import bare_words
from expunge.models.base import LanguageModel
from expunge.models.block_outputs import site_states
from expunge.models.sites import Site
from expunge.models.tensor_store import RowStore

SITES: tuple[Site, ...] = ("hidden", "attention", "ffn")
"""Modules whose outputs are read; the block itself first."""
DECIDING = 4
"""Number of scored labels of an answer, beginning at the first one in which a row's answers differ."""


def answer_options(row: Example, others: Sequence[Example], num_wrong: int) -> list[str]:
    """A row's right answer and wrong ones of the same form; fewer, or none, if there are not enough.

    If enough wrong answers are stored, these, with the paraphrased answer as the right one if there is one, since they
    are variants of it (TOFU). Otherwise the row's own answer with facts of other rows inserted, those of the most
    similar questions first, since a whole answer of another row would be recognisable by its subject.

    Args:
        row: any row.
        others: rows that provide keywords or, without keywords, whole answers.
        num_wrong: number of wrong answers.
    """
    stored = list(dict.fromkeys(row.perturbed_answer))[:num_wrong]
    if row.answer is None or len(stored) == num_wrong:
        return [row.paraphrased_answer or row.answer or "", *stored] if row.answer else []
    question = set(bare_words(row.asked).split())
    alike = sorted(others, key=lambda other: -_overlap(question, set(bare_words(other.asked).split())))
    return [row.answer, *islice(dict.fromkeys(_set_in(row, alike)), num_wrong)]


def _set_in(row: Example, others: Sequence[Example]) -> Iterator[str]:
    answer = row.answer or ""
    own = next((one for one in row.keywords if holds_any(answer, [one])), None)
    for other in others:
        if other.answer is None or other.id == row.id:
            continue
        if own is None:
            if not row.keywords and bare_words(other.answer) != bare_words(answer):
                yield other.answer
            continue
        fact = next((one for one in other.keywords if holds_any(other.answer, [one])), None)
        if fact is not None and not holds_any(fact, row.keywords) and not holds_any(own, [fact]):
            yield fact.join(cut_at(answer, [own]))


def _overlap(one: set[str], other: set[str]) -> float:
    return len(one & other) / max(1, len(one | other))


@dataclass(frozen=True)
class MultipleChoice:
    """One row's answers, encoded after its question, the right one first."""

    answers: tuple[Encoded, ...]
    """Labels: the deciding tokens, then the answer's end token."""


def choice(row: Example, answers: Sequence[str], encoder: Encoder) -> MultipleChoice:
    """Encode a row's answers, the right one first."""
    encoded = [encoder.answered(row, answer) for answer in answers]
    columns = zip(*(one.labels[:-1] for one in encoded), strict=False)
    shared = next((place for place, column in enumerate(columns) if len(set(column)) > 1), None)
    shortest = min(len(one.labels) - 1 for one in encoded)
    start = max(0, shortest - 1) if shared is None else shared
    return MultipleChoice(tuple(_deciding(one, start) for one in encoded))


def _deciding(encoded: Encoded, start: int) -> Encoded:
    end = len(encoded.ids) - 1
    first = min(encoded.num_prompt + start, end)
    places = range(first, max(first + 1, min(first + DECIDING, end)))
    return replace(encoded, targets=(*(place for place in places if place < end), end))


@dataclass(frozen=True)
class ChoiceStates:
    """Block outputs of a model for one row's answers, the right one first; read from the store on access."""

    labels: tuple[Tensor, ...]
    """(N,) deciding tokens of each answer."""
    states: RowStore
    """For the answers of all rows, (S, L, N + 1, D) each."""
    places: range
    """Indices of this row's answers in the store."""

    def deciding(self) -> Iterator[Tensor]:
        """For each answer, (S, L, N, D) states that predict its deciding tokens."""
        return (self.states[place][:, :, :-1] for place in self.places)

    def read(self) -> Tensor:
        """(answers, L, D) what the blocks gave when the whole answer was read."""
        return torch.stack([self.states.part(place, 0)[:, -1] for place in self.places])


def choice_states(model: LanguageModel, choices: Sequence[MultipleChoice]) -> list[ChoiceStates]:
    """One forward pass over all answers of all rows."""
    flat = [answer for one in choices for answer in one.answers]
    states = site_states(model, flat, SITES)
    found, start = [], 0
    for one in choices:
        labels = tuple(torch.tensor(encoded.labels[:-1]) for encoded in one.answers)
        found.append(ChoiceStates(labels, states, range(start, start + len(one.answers))))
        start += len(one.answers)
    return found


def cross_selected(right: Tensor, order: Tensor) -> Tensor:
    """Each row's value at the position that is best for the other half of the rows: (P, R), (R,) -> (R,).

    Selecting the best of many positions on the same rows would suggest knowledge in a model that has none.

    Args:
        right: a value for each position and row.
        order: of the rows when they are divided into halves.
    """
    found = torch.empty(right.shape[1], dtype=right.dtype)
    half = len(order) // 2
    for one, other in ((order[:half], order[half:]), (order[half:], order[:half])):
        place = int(right[:, other].mean(1).argmax()) if len(other) else 0
        found[one] = right[place, one]
    return found


@dataclass(frozen=True)
class AttackedChoices:
    """Block outputs of each model for the attacked rows."""

    lacking: tuple[str | None, ...]
    """For each attacked row, why it is left out; None if it is not."""
    attacked: list[ChoiceStates]
    """The rows that are not left out."""
    original: list[ChoiceStates] | None
    """The same for the original model; None if it is unknown."""

    def values(self, numbers: Tensor) -> list[Value]:
        """Numbers of the rows that are not left out, (R,), to values of all attacked rows."""
        given = iter(numbers.tolist())
        return [next(given) if reason is None else reason for reason in self.lacking]


def attacked_choices(context: AttackContext, num_wrong: int) -> AttackedChoices:
    """The attacked rows as multiple-choice questions, with the states of the model and of the original one.

    Args:
        context: of the attack.
        num_wrong: wrong answers per row; rows with fewer are left out.

    Raises:
        UserError: every row is left out.
    """
    name = f"choices/{num_wrong}"
    laid = multiple_choices(context, context.rows, num_wrong)
    choices = [one for one in laid if not isinstance(one, str)]
    if not choices:
        raise UserError(f"no attacked row has {num_wrong} wrong answers of its own form")
    attacked = context.cached(name, lambda: choice_states(context.model, choices))
    original = None
    if context.load_original is not None:
        original = context.cached(ORIGINAL + name, lambda: choice_states(context.original(), choices))
    return AttackedChoices(tuple(one if isinstance(one, str) else None for one in laid), attacked, original)


def multiple_choices(context: AttackContext, rows: Sequence[Example], num_wrong: int) -> list[MultipleChoice | str]:
    """Rows as multiple-choice questions, or the reason for rows with too few wrong answers."""
    others = [row for _, some in context.splits.named() for row in some]
    found: list[MultipleChoice | str] = []
    for row in rows:
        answers = answer_options(row, others, num_wrong)
        laid = choice(row, answers, context.model.encoder) if len(answers) == num_wrong + 1 else None
        found.append(laid or f"rows without {num_wrong} wrong answers of the same form")
    return found
