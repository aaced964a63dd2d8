"""One row of knowledge."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from expunge.core.provenance import sha256_text
from expunge.data.matching import holds_any as holds_any
from expunge.data.text import normalise as normalise

_NEWER = ("accepted_answers", "system", "history", "original_answer", "golden_answer")


class Turn(NamedTuple):
    """One earlier message of a conversation."""

    role: Literal["user", "assistant"]
    content: str


@dataclass(frozen=True)
class Example:
    """A question or a raw prompt with its answer, or a document (`text`); exactly one of the three."""

    id: str
    question: str | None = None
    answer: str | None = None
    text: str | None = None
    paraphrased_question: str | None = None
    paraphrased_answer: str | None = None
    perturbed_answer: tuple[str, ...] = ()
    """Wrong answers of the same form."""
    subject: str | None = None
    cluster: str | None = None
    """What rows have in common so that they are no independent evidence, e.g. the document that a passage is from."""
    topic: str | None = None
    """Domain of a forget row, e.g. biology, where a method treats domains apart."""
    keywords: tuple[str, ...] = ()
    """Alternative strings; any of them in an answer means that the fact was said."""
    prompt: str | None = None
    """What the answer follows, asked as it stands: no template, no blank taken away."""
    answer_start: str | None = None
    """What the answer to the question begins with, put into the model's mouth; no part of `answer`."""
    options: tuple[str, ...] = ()
    """Choices in order, `answer` among them once; where a prompt spells them out, their letters."""
    accepted_answers: tuple[str, ...] = ()
    """Further answers that are as right as `answer`, which alone is trained on."""
    system: str | None = None
    """System prompt of this row, in the place of `model.system_prompt`."""
    history: tuple[Turn, ...] = ()
    """Earlier turns of the conversation that `question` ends, the user's first."""
    original_answer: str | None = None
    """What the original model answers, in its own words: how meaning and entailment are judged, never trained on."""
    golden_answer: str | None = None
    """The right answer in short, where `answer`, which is trained on, is the original model's own: what is scored."""

    @property
    def asked(self) -> str:
        """The question, the prompt or the document."""
        return self.question or self.prompt or self.text or ""

    @property
    def unit(self) -> str | None:
        """The cluster, or the subject: rows of one unit are resampled together; None for an independent row."""
        return self.cluster or self.subject

    @property
    def key(self) -> str:
        """Text that identifies the fact: what must not be in two splits at once."""
        return normalise(self.asked)


def paraphrased(example: Example) -> Example:
    """The row asked by its other wording, after the same system prompt and earlier turns."""
    return asked_as(example, example.paraphrased_question or "")


def asked_as(example: Example, question: str) -> Example:
    """The row asked by another question, after the same system prompt and earlier turns."""
    return dataclasses.replace(example, question=question, prompt=None, text=None, answer_start=None)


def scored(example: Example) -> Example:
    """The row as it is measured: a golden answer takes the place of the one that is trained on."""
    if example.golden_answer is None:
        return example
    original = example.original_answer or example.answer
    return dataclasses.replace(example, answer=example.golden_answer, original_answer=original)


def fingerprint(examples: Sequence[Example]) -> str:
    """SHA-256 over every row's content, in order; fields newer than 0.1 count only in rows that have them."""
    return sha256_text(*(json.dumps(_identity(example), sort_keys=True) for example in examples))


def _identity(example: Example) -> dict[str, object]:
    values = dataclasses.asdict(example)
    return {name: value for name, value in values.items() if name != "cluster" and (value or name not in _NEWER)}
