"""One row of a data set: a question or prompt with its answer, or a document."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from expunge.core.provenance import sha256_text
from expunge.data.matching import holds_any as holds_any
from expunge.data.text import normalise as normalise

_ADDED_LATER = ("accepted_answers", "system", "history", "original_answer", "golden_answer")


class Turn(NamedTuple):
    """One earlier message of a conversation."""

    role: Literal["user", "assistant"]
    content: str


@dataclass(frozen=True)
class Example:
    """A row has exactly one of `question`, `prompt` and `text`; the first two come with an `answer`."""

    id: str
    question: str | None = None
    """Asked through the chat template."""
    answer: str | None = None
    """Trained on, and compared with what a model answers."""
    text: str | None = None
    """A document."""
    paraphrased_question: str | None = None
    paraphrased_answer: str | None = None
    perturbed_answer: tuple[str, ...] = ()
    """Wrong answers in the same form as `paraphrased_answer`."""
    subject: str | None = None
    """Person or thing that the row is about."""
    cluster: str | None = None
    """Names rows that are not independent evidence, e.g. the passages of one document."""
    topic: str | None = None
    """Domain of a forget row, e.g. biology, for methods that treat domains separately."""
    keywords: tuple[str, ...] = ()
    """Alternatives: an answer that contains any of them states the fact."""
    prompt: str | None = None
    """Sent verbatim: no chat template, white space kept."""
    answer_start: str | None = None
    """Prefilled start of the reply to `question`; not part of `answer`."""
    options: tuple[str, ...] = ()
    """Choices in order, exactly one of them equal to `answer`; letters if a prompt spells the choices out."""
    accepted_answers: tuple[str, ...] = ()
    """Further correct answers; only `answer` is trained on."""
    system: str | None = None
    """System prompt of this row, used instead of `model.system_prompt`."""
    history: tuple[Turn, ...] = ()
    """Turns of the conversation before `question`, starting with the user's."""
    original_answer: str | None = None
    """The original model's own wording, which meaning and entailment are compared with; never trained on."""
    golden_answer: str | None = None
    """Short correct answer that is scored where `answer`, the text trained on, is the original model's own wording."""

    @property
    def asked(self) -> str:
        """The question, the prompt or the document, whichever the row has."""
        return self.question or self.prompt or self.text or ""

    @property
    def unit(self) -> str | None:
        """The cluster, else the subject: confidence intervals resample rows of one unit together. None: independent."""
        return self.cluster or self.subject

    @property
    def key(self) -> str:
        """Normalised text that identifies the row; a key of the forget split must not occur in another split."""
        return normalise(self.asked)


def paraphrased(example: Example) -> Example:
    """The row with its paraphrased question; system prompt and history stay."""
    return asked_as(example, example.paraphrased_question or "")


def asked_as(example: Example, question: str) -> Example:
    """The row with another question; system prompt and history stay."""
    return dataclasses.replace(example, question=question, prompt=None, text=None, answer_start=None)


def scored(example: Example) -> Example:
    """The row as it is scored: with its golden answer, if any, instead of the answer that is trained on."""
    if example.golden_answer is None:
        return example
    original = example.original_answer or example.answer
    return dataclasses.replace(example, answer=example.golden_answer, original_answer=original)


def fingerprint(examples: Sequence[Example]) -> str:
    """SHA-256 over the content of all rows, in order.

    Empty fields that version 0.1 did not know are left out, so that the hashes of older data sets stay valid.
    """
    return sha256_text(*(json.dumps(_identity(example), sort_keys=True) for example in examples))


def _identity(example: Example) -> dict[str, object]:
    values = dataclasses.asdict(example)
    return {name: value for name, value in values.items() if name != "cluster" and (value or name not in _ADDED_LATER)}
