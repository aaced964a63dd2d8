"""Reading TOML, and laying tables over each other."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from expunge.core.errors import UserError
from expunge.core.permission import note
from expunge.core.schema import SLOTS, SPLITS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Tables = dict[str, Any]
_NAMED = {*SLOTS, *SPLITS}
"""Keys whose table may be written as its name alone, and whose options belong to that name."""
_LARGEST = 10_000_000
"""Bytes of the largest file that is read."""


def read_toml(path: Path) -> Tables:
    """Tables of a TOML file.

    Raises:
        UserError: no such file, or not TOML.
    """
    try:
        if path.is_file() and path.stat().st_size > _LARGEST:
            raise UserError(f"{path}: larger than {_LARGEST // 1_000_000} MB; is it a TOML file of options?")
        tables = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (FileNotFoundError, IsADirectoryError):
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    except RecursionError:
        raise UserError(f"{path}: TOML that is nested too deeply") from None
    except ValueError as error:  # not TOML, not UTF-8, or a number of thousands of digits
        raise UserError(f"{path}: not TOML: {error}") from None
    note(path, lambda: tables)
    return tables


def read_value(text: str) -> Any:
    """The value that a piece of TOML denotes; a bare word is a string."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text.strip()


def merge(low: Tables, high: Tables) -> Tables:
    """Tables of `high` over those of `low`; another plug-in, data set or optimizer inherits no options."""
    merged = dict(low)
    if "optimizer" in high and high["optimizer"] != low.get("optimizer"):
        merged.pop("optimizer_options", None)
    for key, value in high.items():
        value, old = (
            {"name": one} if key in (*_NAMED, "model") and isinstance(one, str) else one
            for one in (value, merged.get(key))
        )
        if isinstance(old, dict) and isinstance(value, dict):
            renamed = key in _NAMED and "name" in old and value.get("name", old["name"]) != old["name"]
            merged[key] = dict(value) if renamed else merge(old, value)
        else:
            merged[key] = value
    return merged
