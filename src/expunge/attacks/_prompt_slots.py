"""Slots for an adversary's tokens in prompts, and the targets that should follow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Literal

from expunge.data.encode import DOCUMENT_PROMPT, Encoder
from expunge.data.example import Example

Place = Literal["prefix", "suffix"]
AFFIRMATION = "Sure, here is the answer:"
_FILLERS = ("!", "x")
"""Two tokens that no tokenizer merges with a neighbouring space or word in the same way."""


@dataclass(frozen=True)
class PromptSlot:
    """A prompt with a slot for an adversary's tokens, and the target that should follow it."""

    before: tuple[int, ...]
    after: tuple[int, ...]
    target: tuple[int, ...]

    def prompt(self, ids: Sequence[int]) -> tuple[int, ...]:
        """The prompt with ids in its slot."""
        return (*self.before, *ids, *self.after)


def asked_as_text(example: Example, encoder: Encoder) -> Example:
    """The row with a text prompt; the start of a document becomes its prompt."""
    if example.text is None:
        return example
    document = encoder.document(example.text, example.id, DOCUMENT_PROMPT)
    start, rest = encoder.decode(document.prompt), encoder.decode(document.labels)
    return replace(example, text=None, prompt=start, answer=rest)


def with_text(example: Example, text: str, place: Place) -> Example:
    """The row with a text before or after its question or raw prompt."""

    def joined(own: str) -> str:
        return f"{text} {own.strip()}" if place == "prefix" else f"{own.strip()} {text}"

    if example.prompt is not None:
        return replace(example, prompt=joined(example.prompt))
    return replace(example, question=joined(example.question or ""))


def filler(length: int, text: str = _FILLERS[0]) -> str:
    """Start of a search: one character, repeated."""
    return " ".join([text] * length)


def prompt_slot(example: Example, encoder: Encoder, place: Place, length: int, target: Sequence[int]) -> PromptSlot:
    """The slot before or after a row's question, in token ids.

    Found by comparing prompts with two different fillers: their common beginning and end are outside the slot.
    """
    row = asked_as_text(example, encoder)
    one, other = (encoder.asked(with_text(row, filler(length, sign), place)) for sign in _FILLERS)
    start = _num_shared(one, other)
    end = _num_shared(one[start:][::-1], other[start:][::-1])
    return PromptSlot(one[:start], one[len(one) - end :], tuple(target))


def own_ids(example: Example, encoder: Encoder, place: Place, text: str, known: PromptSlot) -> tuple[int, ...] | None:
    """The ids of a text in a prompt's slot; None if the tokenizer merges it with the surrounding text."""
    ids = encoder.asked(with_text(asked_as_text(example, encoder), text, place))
    end = len(ids) - len(known.after)
    whole = end >= len(known.before) and ids[: len(known.before)] == known.before and ids[end:] == known.after
    return ids[len(known.before) : end] if whole else None


def opening(example: Example, encoder: Encoder) -> tuple[int, ...]:
    """The tokens of a row's answer before its first keyword, or an affirmation if there are none.

    The target does not contain the secret, so that the model itself must supply it.
    """
    row = asked_as_text(example, encoder)
    encoded = encoder.keywords(row)
    if encoded.targets and encoded.targets[0] > encoded.num_prompt:
        return encoded.ids[encoded.num_prompt : encoded.targets[0]]
    return encoder.answered(row, AFFIRMATION).labels[:-1]


def answer(example: Example, encoder: Encoder) -> tuple[int, ...]:
    """The tokens of a row's whole answer, including its end token."""
    row = asked_as_text(example, encoder)
    assert row.answer is not None
    return encoder.answered(row, row.answer).labels


def _num_shared(first: Sequence[int], second: Sequence[int]) -> int:
    pairs: Iterator[tuple[int, int]] = zip(first, second, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
