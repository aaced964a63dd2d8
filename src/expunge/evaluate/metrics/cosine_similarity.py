"""Cosine similarity: did the answer keep its meaning, by a sentence encoder? (arXiv:2410.08109)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from pydantic import Field
from torch import Tensor

from expunge.core.records import Frozen
from expunge.evaluate.base import Absent, Item, Metric, original_text, require_text
from expunge.evaluate.local_scorers import SentenceEncoder, Unavailable

_NO_ORIGINAL = (
    "no answer of an original model to compare with: a run has one, and "
    'evaluate.options.cosine_similarity.reference = "stored" needs none'
)
_AGAINST = {"original": "the original model's greedy answer", "stored": "the stored answer"}


class CosineSimilarity(Metric):
    """`max(0, cos)` of the greedy answer and a reference, by mean-pooled sentence vectors.

    The reference is what the original model itself answered, so that only a change of meaning counts; the paper's code
    takes a stored one: the row's `original_answer`, else the `answer` that is trained on. An empty answer is like
    nothing but another empty one.
    """

    class Config(Frozen):
        """Options of cosine similarity."""

        encoder: str = Field("all-minilm-l6-v2", description="Sentence encoder: embedded name, folder or hub id")
        reference: Literal["original", "stored"] = Field(
            "original", description="Compare with the original model's greedy answer, or with the stored answer"
        )

    meaning = "Whether the model's answer still means what the reference says, by a sentence encoder."
    needs = frozenset({"greedy"})

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.reference = f"{_AGAINST[config.reference]}, by {config.encoder}"
        self._encoder = SentenceEncoder(config.encoder, "evaluate.options.cosine_similarity.encoder")
        self._vectors: dict[str, Tensor] = {}
        self._missing: str | None = None

    def prepare(self, evidence: Mapping[str, Sequence[Item]]) -> None:
        """Encode all distinct texts of a pass together; those of an earlier pass are kept."""
        pairs = ((item.greedy, self._target(item)) for items in evidence.values() for item in items)
        self._encode(text for pair in pairs if None not in pair for text in pair if text)

    def value(self, item: Item, split: str) -> float:
        """In [0, 1]."""
        text = require_text(item.greedy, "greedy answer")
        target = self._target(item)
        if target is None:
            raise Absent(_NO_ORIGINAL if self.config.reference == "original" else "no answer for these rows")
        self._encode(filter(None, (text, target)))
        if self._missing is not None:
            raise Absent(self._missing)
        if text == target or not (text and target):
            return float(text == target)
        similarity = float(self._vectors[text] @ self._vectors[target])
        if math.isnan(similarity):
            reason = self._encoder.cannot_read(text) or self._encoder.cannot_read(target)
            raise Absent(f"{reason}; name another: evaluate.options.cosine_similarity.encoder")
        return min(1.0, max(0.0, similarity))

    def _target(self, item: Item) -> str | None:
        if self.config.reference == "original":
            return item.original_greedy
        return original_text(item)

    def _encode(self, texts: Iterable[str]) -> None:
        new = [text for text in dict.fromkeys(texts) if text not in self._vectors]
        if not new or self._missing is not None:
            return
        try:
            self._vectors.update(zip(new, self._encoder.encode(new), strict=True))
        except Unavailable as error:
            self._missing = f"no sentence encoder: {error}"
