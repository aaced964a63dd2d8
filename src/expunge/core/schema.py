"""The vocabulary of records: slots, splits, the base of all records, and scores with their uncertainty."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

SLOTS = ("forget", "retain", "combine", "localize", "edit")
"""The slots of a method, each filled by one plug-in."""
Split = Literal["forget", "retain", "neighbour", "general", "holdout"]
SPLITS: dict[str, str] = {
    "forget": "what should be gone",
    "retain": "rows that training was to keep",
    "neighbour": "facts close to it that should stay",
    "general": "unrelated knowledge that should stay",
    "holdout": "rows like the forgotten ones that no model was trained on",
}
"""The splits of a run, which are also the roles of a suite's sets, each in the words of a report."""
Better = Literal["higher", "lower", "neither"]


class Frozen(BaseModel):
    """A record: immutable, and closed to fields it does not know.

    Numbers that are not finite are written as `"NaN"`, `"Infinity"` and `"-Infinity"`, and read back.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


class Score(Frozen):
    """One metric on one split with its uncertainty; `value` is None, with a `reason`, if it cannot be computed."""

    value: float | None = Field(description="Mean over the n items")
    low: float | None = Field(None, description="Lower end of the 95% interval (bootstrap; Wilson for shares)")
    high: float | None = Field(None, description="Upper end of the same interval")
    n: int = Field(0, description="Items that the value is the mean of")
    clusters: int | None = Field(
        None,
        description="Persons or documents that the n items are about, which the interval resamples; none: it resamples "
        "the items",
    )
    better: Better = Field("neither", description="Which direction is wanted on this split")
    chance: float | None = Field(None, description="Value of a model that knows nothing, where one is defined")
    reference: str | None = Field(None, description="The named reference that the metric needs, if any")
    reason: str | None = Field(None, description="Why the value is absent")

    @property
    def counted(self) -> str:
        """How many items there are, and how many clusters of them, e.g. `25 (4 clusters)`."""
        return f"{self.n}" if self.clusters is None else f"{self.n} ({self.clusters} clusters)"

    @model_validator(mode="before")
    @classmethod
    def _finite(cls, values: Any) -> Any:
        """A value that is not finite is no score: it is absent, with that reason."""
        value = values.get("value") if isinstance(values, dict) else None
        if isinstance(value, float) and not math.isfinite(value):
            return {**values, "value": None, "low": None, "high": None, "reason": f"the result is {value}, no number"}
        return values
