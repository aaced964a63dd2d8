"""Options of the attacks of a run; importing this module does not import torch."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from expunge.core import plugins
from expunge.core.errors import UserError
from expunge.core.records import Frozen


class AttackConfig(Frozen):
    """Selection and time budget of the attacks on the unlearned model."""

    names: tuple[str, ...] | None = Field(
        None, description="Names of attacks. Default: those that need prompts only; empty: none"
    )
    budget: float = Field(60.0, ge=0, description="Time budget in seconds for all attacks; 0: no attacks")
    max_rows: int = Field(20, ge=1, description="Maximum number of attacked forget rows, a seeded sample")
    options: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="Options of attacks by name; attacks.NAME.KEY is short for attacks.options.NAME.KEY",
    )

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, value: Any) -> Any:
        """`[attacks.relearning]` stands for `[attacks.options.relearning]`."""
        if not isinstance(value, dict):
            return value
        own = {key: table for key, table in value.items() if key not in cls.model_fields and isinstance(table, dict)}
        rest = {key: item for key, item in value.items() if key not in own}
        for key in rest:
            if key not in cls.model_fields and key in plugins.names("attacks"):
                raise UserError(
                    f"attacks.{key}: expected a table of options, got {rest[key]!r}; write attacks.{key}.OPTION=VALUE, "
                    f"and see `expunge show attack {key}`"
                )
        if isinstance(rest.get("names"), list):  # values returned by a validator are not coerced like JSON lists
            rest["names"] = tuple(rest["names"])
        return {**rest, "options": {**rest.get("options", {}), **own}} if own else rest
