"""TOML in."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from expunge.core.errors import UserError
from expunge.core.permission import note

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Tables = dict[str, Any]


def read_toml(path: Path) -> Tables:
    """Tables of a TOML file.

    Raises:
        UserError: no such file, or not TOML.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (FileNotFoundError, IsADirectoryError):
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not TOML: {error}") from None
    note(path, lambda: tables)
    return tables


def read_value(text: str) -> Any:
    """What a piece of TOML stands for; a bare word is a string."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text.strip()
