"""Facts to trace: tokenised rows whose question contains their subject."""

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
    """The last of these places."""
    repeated: tuple[int, ...]
    """Places of the subject's tokens after the question."""


def subject_of(row: Example) -> str | None:
    """The subject of the question: the row's own subject, or else the capitalised words of the question.

    If the row's subject is its answer (Who wrote Hamlet?), the question is about something else: the longest run of
    capitalised words, not counting the first word of the question.

    Raises:
        UserError: the row's subject is neither in its question nor in its answer.
    """
    question, answer = row.question or "", row.answer or ""
    if row.subject and _mentions(row.subject, question):
        return row.subject
    if row.subject and not _mentions(row.subject, answer):
        raise UserError(f"row '{row.id}': its subject '{row.subject}' is not in its question")
    return max(_capitalised(question), key=lambda run: (len(run.split()), len(run)), default=None)


def find_fact(encoder: Encoder, row: Example, subject: str, keywords: bool) -> Fact:
    """The positions of a row's subject among its tokens.

    Args:
        encoder: of the model.
        row: a question with its answer.
        subject: from `subject_of`.
        keywords: use only the answer's keywords as labels, if it contains any.

    Raises:
        UserError: the subject cannot be found among the tokens.
    """
    encoded = encoder.keywords(row) if keywords else _without_end(encoder.example(row))
    starts = [len(encoder.tokenizer.decode(list(encoded.ids[:n]))) for n in range(len(encoded.ids) + 1)]
    text = str(encoder.tokenizer.decode(list(encoded.ids)))
    question_end = starts[encoded.num_prompt]
    asked = _mentions(subject, text[:question_end])[-len(_mentions(subject, row.question or "")) :]
    if not asked:
        raise UserError(f"row '{row.id}': the subject '{subject}' cannot be found among the question's tokens")
    places = _places(starts, asked)
    repeated = [place for place in _places(starts, _mentions(subject, text)) if place >= encoded.num_prompt]
    return Fact(row, encoded, tuple(places), places[-1], tuple(repeated))


def _without_end(encoded: Encoded) -> Encoded:
    """Without the end token, which carries no knowledge."""
    return Encoded(encoded.ids[:-1], encoded.num_prompt)


def _mentions(subject: str, text: str) -> list[tuple[int, int]]:
    """Spans of a subject in a text, as whole words, ignoring case."""
    return find(text, [subject], "word")


def _places(starts: Sequence[int], spans: Sequence[tuple[int, int]]) -> list[int]:
    """Positions of tokens that overlap a span."""
    return [
        place
        for place, (start, end) in enumerate(pairwise(starts))
        if any(start < last and first < end for first, last in spans)
    ]


def _capitalised(question: str) -> Iterator[str]:
    """Runs of capitalised words, not counting the first word."""
    words = list(_WORD.finditer(question))[1:]
    start = None
    for place, word in enumerate(words):
        if not word[0][0].isupper():
            start = None
            continue
        if start is None or question[words[place - 1].end() : word.start()].strip():
            start = word.start()
        yield question[start : word.end()]
