"""Meta-evaluation: which metrics separate models that know from models that do not, and stay right under attack."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from expunge.core.records import DataPrint, Frozen, Provenance, Score
from expunge.core.report_section import ReportSection

Verdict = Literal["trust", "faithful, robustness not measured", "faithful, not robust", "not shown faithful"]


class PoolModel(Frozen):
    """One model of a pool, and every metric of it."""

    path: str
    knows: bool | None = Field(None, description="Whether it was taught the forget rows; none: it was unlearned")
    utility: float | None = Field(None, description="Share of the original model's utility")
    kept: bool | None = Field(None, description="Of an unlearned model: whether its utility is high enough to count")
    before: dict[str, Score] = Field(description="Metric -> score on the forget rows")
    quantized: dict[str, Score] = Field(default_factory=dict, description="The same with quantized weights")
    relearned: dict[str, Score] = Field(default_factory=dict, description="The same after training on the forget rows")


class MetricTrust(Frozen):
    """How far one metric can be trusted. All values are oriented so that higher means more knowledge."""

    metric: str
    faithfulness: Score = Field(description="AUROC between models that know and models that do not")
    threshold: float | None = Field(None, description="Models below this are classified as not knowing")
    relearn: Score = Field(
        description="R: mean over unlearned models below it; 1: they gain no more than the retrained"
    )
    quantize: Score = Field(description="Q: mean over the same; 1: quantization recovers nothing")
    robustness: Score = Field(description="Harmonic mean of both")
    verdict: Verdict


class MetaRecord(Frozen):
    """A meta-evaluation, whole."""

    schema_version: Literal[1] = 1
    pool: str = Field(description="The pool file")
    config: dict[str, Any]
    data: dict[str, DataPrint]
    models: list[PoolModel]
    retrained: PoolModel | None = Field(None, description="The reference of relearning, measured before and after it")
    metrics: list[MetricTrust]
    finding: ReportSection
    provenance: Provenance
    seconds: float
