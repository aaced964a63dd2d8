"""Strict validation of options, with one line for the user."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from expunge.core.errors import UserError, near

Checked = TypeVar("Checked", bound=BaseModel)

LARGEST_INTEGER = 2**32 - 1
"""Largest seed of the random generators in use; no length or count of an option comes near it."""
LARGEST_FLOAT = 1e30
"""Beyond it, squares are infinite in float32 arithmetic or nearly so."""


def check(kind: type[Checked], values: Mapping[str, Any], where: str) -> Checked:
    """Validate strictly, and report the first mistake in one line with its dotted path.

    Raises:
        UserError: unknown key (with near names), wrong type, value out of range, not finite or too large for any
            machine, an empty name or list entry, missing key.
    """
    if found := _unusable(dict(values), where):
        raise UserError(f"{found[0]}: {found[1]}")
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


def _unusable(value: Any, path: str) -> tuple[str, str] | None:
    """Dotted path of the first value that no option allows, and the reason."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        if isinstance(value, float) and not math.isfinite(value):
            return path, f"expected a finite number, got {value}"
        if abs(value) > (LARGEST_INTEGER if isinstance(value, int) else LARGEST_FLOAT):
            return path, f"{value:.3g} is too large a number"
        return None
    inside: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, Mapping):
        if "" in value:
            return path, "a name is empty"
        inside = value.items()
    elif isinstance(value, list | tuple):
        inside = enumerate(value)
    for key, one in inside:
        place = f"{path}.{key}".lstrip(".")
        if one == "" and isinstance(value, list | tuple):
            return place, "an empty text"
        if found := _unusable(one, place):
            return found
    return None


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
