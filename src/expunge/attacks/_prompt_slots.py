"""Where an adversary's own tokens stand in a prompt, and what the model is to say after it."""

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
"""Two tokens that no tokenizer merges with a neighbouring blank or word in the same way."""


@dataclass(frozen=True)
class PromptSlot:
    """A prompt with room for an adversary's tokens, and what is to follow it."""

    before: tuple[int, ...]
    after: tuple[int, ...]
    target: tuple[int, ...]

    def prompt(self, ids: Sequence[int]) -> tuple[int, ...]:
        """The prompt with some ids in its hole."""
        return (*self.before, *ids, *self.after)


def asked_as_text(example: Example, encoder: Encoder) -> Example:
    """The row with a prompt that is text: of a document its start."""
    if example.text is None:
        return example
    document = encoder.document(example.text, example.id, DOCUMENT_PROMPT)
    start, rest = encoder.decode(document.prompt), encoder.decode(document.labels)
    return replace(example, text=None, prompt=start, answer=rest)


def with_text(example: Example, text: str, place: Place) -> Example:
    """The row asked with a text before or behind its question or raw prompt."""

    def joined(own: str) -> str:
        return f"{text} {own.strip()}" if place == "prefix" else f"{own.strip()} {text}"

    if example.prompt is not None:
        return replace(example, prompt=joined(example.prompt))
    return replace(example, question=joined(example.question or ""))


def filler(length: int, text: str = _FILLERS[0]) -> str:
    """Where a search starts: one sign, over and over."""
    return " ".join([text] * length)


def prompt_slot(example: Example, encoder: Encoder, place: Place, length: int, target: Sequence[int]) -> PromptSlot:
    """Where tokens before or behind a row's question stand among its ids.

    Found by asking with two different fillers: what both prompts begin and end with is not the adversary's.
    """
    row = asked_as_text(example, encoder)
    one, other = (encoder.asked(with_text(row, filler(length, sign), place)) for sign in _FILLERS)
    start = _num_shared(one, other)
    end = _num_shared(one[start:][::-1], other[start:][::-1])
    return PromptSlot(one[:start], one[len(one) - end :], tuple(target))


def own_ids(example: Example, encoder: Encoder, place: Place, text: str, known: PromptSlot) -> tuple[int, ...] | None:
    """The ids that a text has in a prompt's hole; None if it reads otherwise there, merged with what stands around."""
    ids = encoder.asked(with_text(asked_as_text(example, encoder), text, place))
    end = len(ids) - len(known.after)
    whole = end >= len(known.before) and ids[: len(known.before)] == known.before and ids[end:] == known.after
    return ids[len(known.before) : end] if whole else None


def opening(example: Example, encoder: Encoder) -> tuple[int, ...]:
    """The tokens of a row's answer before the first that holds a keyword; an affirmation where that is none.

    A target without the secret: what follows it is the model's own.
    """
    row = asked_as_text(example, encoder)
    encoded = encoder.keywords(row)
    if encoded.targets and encoded.targets[0] > encoded.num_prompt:
        return encoded.ids[encoded.num_prompt : encoded.targets[0]]
    return encoder.answered(row, AFFIRMATION).labels[:-1]


def answer(example: Example, encoder: Encoder) -> tuple[int, ...]:
    """The tokens of a row's whole answer, its end included."""
    row = asked_as_text(example, encoder)
    assert row.answer is not None
    return encoder.answered(row, row.answer).labels


def _num_shared(first: Sequence[int], second: Sequence[int]) -> int:
    pairs: Iterator[tuple[int, int]] = zip(first, second, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
