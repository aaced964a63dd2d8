"""A retrained reference as a file: row values by role and metric, and no model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, ValidationError

from expunge.core.errors import UserError
from expunge.core.files import sha256_file
from expunge.core.records import Frozen
from expunge.evaluate.aliases import Named, openunlearning
from expunge.evaluate.base import RowNumbers, SetValues
from expunge.evaluate.config import Role
from expunge.evaluate.membership import Sides
from expunge.evaluate.sets import Sets

SUFFIX = ".json"
_COMPARED: tuple[Role, ...] = ("forget", "holdout")
"""Rows whose values set metrics compare."""
_TOLERANCE = 1e-3
"""How far a stored mean may lie from the rows' own: its probabilities may be bfloat16."""


class ReferenceFile(Frozen):
    """Values of a model that never saw the forget rows."""

    schema_version: Literal[1] = 1
    kind: Literal["expunge reference"] = "expunge reference"
    source: str = Field(description="File that it was read from")
    sha256: str = Field(description="Hash of that file")
    rows: dict[Role, int] = Field(description="Rows of each role, those without a number too")
    values: dict[Role, dict[str, list[float | None]]] = Field(description="Role -> row metric -> a number a row")

    @property
    def set_values(self) -> SetValues:
        """As set metrics read them: numbers only."""
        return {
            role: {
                name: RowNumbers(np.array([one for one in numbers if one is not None]))
                for name, numbers in metrics.items()
            }
            for role, metrics in self.values.items()
        }

    def check(self, sets: Sets, name: str) -> None:
        """Refuse a reference of other rows than those that are measured.

        Args:
            sets: what is measured.
            name: of the file, for messages.

        Raises:
            UserError: another number of forget or holdout rows, or no forget rows.
        """
        if "forget" not in self.rows:
            raise UserError(f"--reference {name}: holds no forget rows")
        for role, count in ((role, count) for role, count in self.rows.items() if role in _COMPARED):
            here = sum(len(one.rows) for one in sets.values() if one.role == role)
            if here and here != count:
                raise UserError(f"--reference {name}: of another data set: {count} {role} rows, {here} are measured")


def is_reference_file(name: Any) -> bool:
    """Whether a reference is given as a file and not as a model."""
    return isinstance(name, str | Path) and str(name).endswith(SUFFIX)


def read_reference(path: Path) -> ReferenceFile:
    """A file that `import_openunlearning` wrote.

    Raises:
        UserError: no such file, or one of another kind or schema version.
    """
    try:
        return ReferenceFile.model_validate_json(path.read_bytes())
    except (FileNotFoundError, IsADirectoryError):
        raise UserError(f"--reference {path}: no such file") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        hint = "; `expunge import-ou` makes one of OpenUnlearning's TOFU_EVAL.json"
        raise UserError(f"--reference {path}: not a reference file: {where or 'JSON'}: {first['msg']}{hint}") from None


def import_openunlearning(path: Path) -> ReferenceFile:
    """Read OpenUnlearning's log of one evaluation: `{metric: {agg_value, value_by_index}}`.

    Metrics without row values, or of a name that is not known here, are left out. What is taken is checked: rows are
    numbered from 0 without a gap, all metrics of a role have equally many, and the file's own mean is that of its rows.

    Raises:
        UserError: no such file, not JSON, nothing of use in it, or a mistake in it, named by its place.
    """
    import json

    try:
        logs = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError):
        raise UserError(f"{path}: no such file") from None
    except RecursionError:
        raise UserError(f"{path}: JSON that is nested too deeply") from None
    except ValueError as error:  # not JSON, not UTF-8, or a number of thousands of digits
        raise UserError(f"{path}: not JSON: {error}") from None
    if not isinstance(logs, dict):
        raise UserError(f"{path}: not an evaluation of OpenUnlearning: an object of metrics is expected")
    values: dict[Role, dict[str, list[float | None]]] = {}
    rows: dict[Role, int] = {}
    for name, log in logs.items():
        for role, metric, numbers in _read(name, log, f"{path}: {name}"):
            if rows.setdefault(role, len(numbers)) != len(numbers):
                raise UserError(f"{path}: {name}: {len(numbers)} {role} rows, other metrics have {rows[role]}")
            if all(number is None for number in numbers):
                raise UserError(f"{path}: {name}: no {role} row has a value")
            values.setdefault(role, {})[metric] = numbers
    if not values:
        known = "forget_truth_ratio, forget_Q_A_Prob, mia_min_k and their like"
        raise UserError(f"{path}: no row values of a known metric ({known}); a SUMMARY file holds none")
    return ReferenceFile(source=path.name, sha256=sha256_file(path), rows=rows, values=values)


def _read(name: str, log: Any, where: str) -> list[tuple[Role, str, list[float | None]]]:
    """Role, metric and row values of one entry."""
    if not isinstance(log, dict):
        return []
    if name.startswith("mia_") and "forget" in log:
        found: list[tuple[Role, str, list[float | None]]] = []
        for role in _COMPARED:
            one = log.get(role)
            if not isinstance(one, dict) or "value_by_index" not in one:
                raise UserError(f"{where}: no {role} rows")
            numbers = _numbers(one["value_by_index"], "score", f"{where}.{role}")
            _check_mean(one.get("agg_value"), [_mean(numbers)], f"{where}.{role}")
            found.append((role, name, numbers))
        both = Sides(*(RowNumbers(np.array([one for one in numbers if one is not None])) for _, _, numbers in found))
        _check_mean(log.get("auc"), [both.auc()], f"{where}.auc")
        return found
    meant = openunlearning().get(name)
    if meant is None or "value_by_index" not in log:
        return []
    assert meant.role is not None
    numbers = _numbers(log["value_by_index"], meant.field, where)
    _check_mean(log.get("agg_value"), _means(meant, numbers), where)
    return [(meant.role, meant.stored, numbers)]  # type: ignore[list-item]


def _numbers(entries: Any, field: str, where: str) -> list[float | None]:
    """Values in the order of the rows; of several answers their mean."""
    if not isinstance(entries, dict) or not entries:
        raise UserError(f"{where}: value_by_index is no object of rows")
    try:
        order = sorted(entries, key=int)
    except ValueError:
        raise UserError(f"{where}: a row is not named by its number") from None
    if [int(row) for row in order] != list(range(len(order))):
        raise UserError(f"{where}: rows are not numbered 0 to {len(order) - 1}: is it the whole data set?")
    return [_number(entries[row], field, f"{where}.value_by_index.{row}") for row in order]


def _number(entry: Any, field: str, where: str) -> float | None:
    if entry is None:
        return None
    if not isinstance(entry, Mapping) or field not in entry:
        raise UserError(f"{where}: no '{field}'")
    several = entry[field] if isinstance(entry[field], list) else [entry[field]]
    if any(one is None for one in several):
        return None
    if not several or not all(isinstance(one, int | float) and math.isfinite(one) for one in several):
        raise UserError(f"{where}.{field}: not a number: {entry[field]!r}")
    return sum(several) / len(several)


def _means(meant: Named, numbers: list[float | None]) -> list[float]:
    """What the mean may be: of the truth ratio, by any of its three aggregators."""
    if meant.stored == meant.metric:
        return [_mean(numbers)]
    some = [one for one in numbers if one is not None]
    return [
        _mean([min(one, 1 / (one + 1e-10)) for one in some]),
        _mean([max(0.0, 1 - one) for one in some]),
        _mean([1 / (1 + one) for one in some]),
    ]


def _mean(numbers: list[Any]) -> float:
    some = [one for one in numbers if one is not None]
    return sum(some) / len(some) if some else math.nan


def _check_mean(stored: Any, possible: list[float], where: str) -> None:
    if stored is None:
        return
    if not isinstance(stored, int | float):
        raise UserError(f"{where}: its aggregate is not a number: {stored!r}")
    if not any(math.isclose(stored, mean, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE) for mean in possible):
        found = " or ".join(f"{mean:.4g}" for mean in possible)
        raise UserError(f"{where}: its aggregate is {stored:.4g}, but its rows give {found}")
