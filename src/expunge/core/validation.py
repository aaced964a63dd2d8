"""Strict validation of options, told to a user in one line."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from expunge.core.errors import UserError, near

Checked = TypeVar("Checked", bound=BaseModel)


def check(kind: type[Checked], values: Mapping[str, Any], where: str) -> Checked:
    """Validate strictly, and tell the first mistake in one line with its dotted path.

    Raises:
        UserError: unknown key (with near names), wrong type, value out of range or not finite, missing key.
    """
    if found := _not_finite(dict(values), where):
        raise UserError(f"{found[0]}: expected a finite number, got {found[1]}")
    try:
        return kind.model_validate_json(json.dumps(dict(values), default=str), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
    path = [*([where] if where else []), *map(str, first["loc"])]
    dotted = ".".join(path)
    if first["type"] == "extra_forbidden":
        raise UserError(f"unknown key '{dotted}'{near(path[-1], _keys(kind, first['loc'][:-1]))}")
    if first["type"] == "missing":
        raise UserError(f"missing key '{dotted}'")
    raise UserError(f"{dotted}: {first['msg'].lower()}, got {first['input']!r}")


def _not_finite(value: Any, path: str) -> tuple[str, float] | None:
    """Dotted path and value of the first number that is infinite or no number."""
    if isinstance(value, float) and not math.isfinite(value):
        return path, value
    inside: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, Mapping):
        inside = value.items()
    elif isinstance(value, list | tuple):
        inside = enumerate(value)
    found = (_not_finite(one, f"{path}.{key}".lstrip(".")) for key, one in inside)
    return next(filter(None, found), None)


def _keys(kind: type[BaseModel], path: Sequence[Any]) -> list[str]:
    """Field names of the model at a path inside another."""
    for part in path:
        if isinstance(part, int):  # a place in a list of models
            continue
        field = kind.model_fields.get(str(part))
        inner = [item for item in (field.annotation, *_arguments(field.annotation)) if _is_model(item)] if field else []
        if not inner:
            return []
        kind = inner[0]
    return [*kind.model_fields]


def _arguments(annotation: Any) -> tuple[Any, ...]:
    return getattr(annotation, "__args__", ())


def _is_model(item: Any) -> bool:
    return isinstance(item, type) and issubclass(item, BaseModel)
