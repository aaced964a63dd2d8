"""Options of a measurement; importing them does not import torch."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from expunge.core.records import Frozen
from expunge.core.schema import Split
from expunge.data.encode import DOCUMENT_PROMPT
from expunge.data.matching import DEFAULT, Match

Role = Split
"""What a set of rows is for: that of the split of the same name in a run."""


class KindsConfig(Frozen):
    """Thresholds between kinds of answer."""

    rouge_l_recall: float = Field(
        0.6,
        gt=0,
        le=1,
        description="Without keywords: an answer with at least this recall of the stored one states the fact",
    )
    refusals: str = Field(
        "", description="File of further refusals, one per line: an answer that contains one is a refusal"
    )
    word_entropy: float = Field(
        0.6, ge=0, le=1, description="A long answer whose words have a lower normalised entropy is gibberish"
    )
    repetition: float = Field(
        0.5, gt=0, le=1, description="A long answer with at least this share of repeated word triples is gibberish"
    )
    word_share: float = Field(
        0.6, ge=0, le=1, description="An answer with a lower share of its characters in plausible words is gibberish"
    )


class EvaluateConfig(Frozen):
    """Options of a measurement."""

    metrics: tuple[str, ...] = Field((), description="Metric names. Default: all that are not opt-in")
    set_metrics: tuple[str, ...] | None = Field(
        None,
        description="Names of metrics over many rows. Default: all of them if there are holdout rows or a "
        "retrained reference, else none",
    )
    options: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description='Options of metrics by name, e.g. cosine_similarity = {reference = "stored"}'
    )
    max_new_tokens: int = Field(
        64, ge=1, le=100_000, description="Longest generated answer, in tokens; reasoning is not counted"
    )
    max_reasoning_tokens: int = Field(
        1024, ge=0, description="Longest reasoning before an answer, in tokens; also bounded by the model's context"
    )
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        (), description="Strings at which a generated text is cut, in addition to the end token"
    )
    document_prompt: float = Field(
        DOCUMENT_PROMPT,
        ge=0,
        lt=1,
        description="Share of a document that is its prompt; the rest is scored. 0: all tokens but the first",
    )
    reference_tokens: int | None = Field(
        None,
        ge=1,
        description="Text metrics compare with this many first tokens of the stored answer, including a start token "
        "that the tokenizer adds. Default: all",
    )
    samples: int = Field(
        10, ge=0, le=10_000, description="Answers sampled for each question; a leak in any of them counts"
    )
    probe_splits: tuple[Role, ...] = Field(
        ("forget",), description="Splits whose questions are also sampled and paraphrased"
    )
    temperature: float = Field(1.0, gt=0, le=100, description="Sampling temperature; no top-k or top-p cut is made")
    max_rows: int = Field(400, ge=1, description="Larger splits are measured on a seeded sample of this many rows")
    cache: bool = Field(
        True,
        description="Keep what the original model and references say under the user's cache folder, readable for its "
        "owner only, so that they are asked once",
    )
    token_budget: int = Field(8192, ge=64, description="Padded prompt tokens in one batch")
    kinds: KindsConfig = Field(default_factory=KindsConfig, description="Thresholds of the kinds of answer")
    match: Match = Field(
        DEFAULT,
        description="What counts as a keyword in an answer: inflected (also its forms, compounds that begin with it "
        "and other layouts), word (whole words only), or substring (anywhere, also within other words)",
    )
