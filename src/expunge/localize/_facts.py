"""Facts to trace: rows whose subject stands in their question, as tokens."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from expunge.core.errors import UserError
from expunge.data.encode import Encoded, Encoder
from expunge.data.example import Example
from expunge.data.matching import find

_WORD = re.compile(r"\w(?:\S*\w)?")


@dataclass(frozen=True)
class Fact:
    """One row as tokens."""

    row: Example
    encoded: Encoded
    subject: tuple[int, ...]
    """Places of the subject's tokens in the question."""
    last: int
    """The last of them."""
    repeated: tuple[int, ...]
    """Places of the subject's tokens in what follows the question."""


def subject_of(row: Example) -> str | None:
    """What the question is about: the row's own subject, or else the capitalised words of the question.

    A row whose subject is its answer (Who wrote Hamlet?) asks for it, and is about something else. The rule then is the
    longest run of words with a capital letter; the question's first word, which always has one, is in no run.

    Raises:
        UserError: the row's subject stands neither in its question nor in its answer.
    """
    question, answer = row.question or "", row.answer or ""
    if row.subject and _mentions(row.subject, question):
        return row.subject
    if row.subject and not _mentions(row.subject, answer):
        raise UserError(f"row '{row.id}': its subject '{row.subject}' does not stand in its question")
    return max(_capitalised(question), key=lambda run: (len(run.split()), len(run)), default=None)


def find_fact(encoder: Encoder, row: Example, subject: str, keywords: bool) -> Fact:
    """The places of a row's subject among its tokens.

    Args:
        encoder: of the model.
        row: a question with its answer.
        subject: what `subject_of` gave.
        keywords: take only the answer's keywords for labels, where it holds any.

    Raises:
        UserError: the tokenizer changes the subject so that it cannot be found.
    """
    encoded = encoder.keywords(row) if keywords else _without_end(encoder.example(row))
    starts = [len(encoder.tokenizer.decode(list(encoded.ids[:n]))) for n in range(len(encoded.ids) + 1)]
    text = str(encoder.tokenizer.decode(list(encoded.ids)))
    border = starts[encoded.num_prompt]
    asked = _mentions(subject, text[:border])[-len(_mentions(subject, row.question or "")) :]
    if not asked:
        raise UserError(f"row '{row.id}': the subject '{subject}' cannot be found among the question's tokens")
    places = _places(starts, asked)
    repeated = [place for place in _places(starts, _mentions(subject, text)) if place >= encoded.num_prompt]
    return Fact(row, encoded, tuple(places), places[-1], tuple(repeated))


def _without_end(encoded: Encoded) -> Encoded:
    """Without the end token, which is no part of what is known."""
    return Encoded(encoded.ids[:-1], encoded.num_prompt)


def _mentions(subject: str, text: str) -> list[tuple[int, int]]:
    """Where a subject stands in a text as whole words, whatever the case."""
    return find(text, [subject], "word")


def _places(starts: Sequence[int], spans: Sequence[tuple[int, int]]) -> list[int]:
    """Tokens that hold a part of any span."""
    return [
        place
        for place, (start, end) in enumerate(pairwise(starts))
        if any(start < last and first < end for first, last in spans)
    ]


def _capitalised(question: str) -> Iterator[str]:
    """Runs of words with a capital letter, the first word left out."""
    words = list(_WORD.finditer(question))[1:]
    start = None
    for place, word in enumerate(words):
        if not word[0][0].isupper():
            start = None
            continue
        if start is None or question[words[place - 1].end() : word.start()].strip():
            start = word.start()
        yield question[start : word.end()]
