"""Every row's evidence as one Parquet table, with its text only if the user allows that."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from expunge.core.errors import UserError
from expunge.core.files import replacing
from expunge.evaluate.answer_kinds import Kinds
from expunge.evaluate.evidence import Evidence

Values = dict[str, dict[str, list[float | str]]]
"""Split -> metric -> one number per row, or the reason for its absence."""
NumbersById = dict[str, dict[str, dict[str, float | None]]]
"""Split -> metric -> id of a row -> its number."""
ClustersById = dict[str, dict[str, int | None]]
"""Split -> id of a row -> number of its cluster."""


CLUSTER = "cluster"
"""Column of a number for each row, the same for rows about one person or document; empty for independent rows."""
_TEXT = ("stage", "split", "id", "kind", "question", "answer", "generated", "reasoning")
"""Text columns other than `samples`."""


def write_items(path: Path, stages: dict[str, tuple[Evidence, Values, Kinds]], show_text: bool) -> None:
    """Write the rows of each stage.

    Args:
        path: the Parquet file; readable by its owner only if it holds text.
        stages: stage name (before, after) -> evidence, metric values and kinds of answer.
        show_text: include questions, stored answers and generated text.
    """
    import pyarrow
    import pyarrow.parquet

    rows = [row for stage, measured in stages.items() for row in _rows(stage, *measured, show_text)]
    metrics = sorted({name for _, values, _ in stages.values() for by_metric in values.values() for name in by_metric})
    text = {name: pyarrow.string() for name in _TEXT}
    others = {CLUSTER: pyarrow.int64(), "samples": pyarrow.list_(pyarrow.string())}
    types = {**text, **others, **dict.fromkeys(metrics, pyarrow.float64())}
    with replacing(path, private=show_text) as partial:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, pyarrow.schema(types)), partial)


def read_items(path: Path) -> dict[str, NumbersById]:
    """The metric values of each stage, as they were written.

    Raises:
        UserError: no such file, one of another kind, or a row that occurs twice.
    """
    table = _table(path)
    metrics = [name for name in table.column_names if name not in (*_TEXT, CLUSTER, "samples")]
    found: dict[str, NumbersById] = {}
    for row in table.select(["stage", "split", "id", *metrics]).to_pylist():
        by_metric = found.setdefault(row["stage"], {}).setdefault(row["split"], {name: {} for name in metrics})
        for name in metrics:
            if row["id"] in by_metric[name]:
                raise UserError(f"{path}: row '{row['id']}' of {row['split']} occurs twice")
            by_metric[name][row["id"]] = row[name]
    return found


def read_clusters(path: Path) -> dict[str, ClustersById]:
    """Stage -> split -> id of a row -> number of its cluster; None for an independent row, as in files of version 0.1.

    Raises:
        UserError: as `read_items`.
    """
    table = _table(path)
    columns = [name for name in ("stage", "split", "id", CLUSTER) if name in table.column_names]
    found: dict[str, ClustersById] = {}
    for row in table.select(columns).to_pylist():
        found.setdefault(row["stage"], {}).setdefault(row["split"], {})[row["id"]] = row.get(CLUSTER)
    return found


def _table(path: Path) -> Any:
    import pyarrow
    import pyarrow.parquet

    if not path.is_file():
        raise UserError(f"{path}: no such file: the values of single rows are needed here")
    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: not a Parquet file, or a damaged one: {reason}") from None
    if lacking := [name for name in ("stage", "split", "id") if name not in table.column_names]:
        raise UserError(f"{path}: no column '{lacking[0]}'; was it written by expunge?")
    return table


def _rows(stage: str, evidence: Evidence, values: Values, kinds: Kinds, show_text: bool) -> Iterator[dict[str, Any]]:
    for split, items in evidence.items():
        numbers_of: dict[str, int] = {}
        for index, item in enumerate(items):
            row: dict[str, Any] = {"stage": stage, "split": split, "id": item.example.id, "kind": kinds[split][index]}
            if item.example.unit is not None:
                row[CLUSTER] = numbers_of.setdefault(item.example.unit, len(numbers_of))
            if show_text:
                row["question"] = item.example.asked
                row["answer"] = item.example.answer or item.continuation
                row["generated"] = item.greedy
                row["reasoning"] = item.reasoning
                row["samples"] = list(item.samples) or None
            for name, numbers in values[split].items():
                number = numbers[index]
                row[name] = None if isinstance(number, str) else number
            yield row
