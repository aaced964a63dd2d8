"""Load a `DataSpec`, or rows given from Python, as checked examples with a summary of how they were read."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from pydantic import ValidationError

from expunge.core import plugins
from expunge.core.errors import UserError, near
from expunge.core.schema import SPLITS
from expunge.data.base import DataConfig, DataSource, DataSpec
from expunge.data.example import Example
from expunge.data.files import endings, exists, read, split_of
from expunge.data.formats.base import RawRow, RawTable
from expunge.data.rows import RowReader
from expunge.data.sources._tables import read_hub
from expunge.data.splits import Splits
from expunge.data.summary import DataSummary


class LoadedData(NamedTuple):
    """The rows of one split, and how each of the data sets that it is made of was read."""

    examples: tuple[Example, ...]
    understood: tuple[DataSummary, ...]


def load_splits(config: DataConfig) -> Splits:
    """Load and check every split that the configuration names.

    Raises:
        UserError: see `load_data` and `Splits.check`.
    """
    specs = {name: spec for name in SPLITS if (spec := getattr(config, name)) is not None}
    return splits_of(
        {name: load_data(spec, f"data.{name}") for name, spec in specs.items()},
        {name: str(spec) for name, spec in specs.items()},
    )


def splits_of(loaded: Mapping[str, LoadedData], sources: Mapping[str, str]) -> Splits:
    """Loaded data as the checked splits of a run; a missing forget or retain split is empty.

    Args:
        loaded: split -> its data.
        sources: split -> where it came from, in the user's words.

    Raises:
        UserError: as `Splits.check`.
    """
    rows: dict[str, Any] = {"forget": (), "retain": (), **{name: one.examples for name, one in loaded.items()}}
    understood = {name: one.understood for name, one in loaded.items()}
    splits = Splits(**rows, sources=dict(sources), understood=understood)
    splits.check()
    return splits


def load_examples(spec: DataSpec, where: str = "data") -> tuple[Example, ...]:
    """Rows of one split as examples; see `load_data`."""
    return load_data(spec, where).examples


def load_data(spec: DataSpec, where: str = "data") -> LoadedData:
    """Rows of one split as examples, and what was understood.

    Args:
        spec: which data.
        where: dotted path of the spec in the configuration, for messages.

    Raises:
        UserError: unknown name, missing or empty file, malformed row, missing field, empty answer, repeated id.
    """
    parts = list(_parts(spec, where))
    stems = _stems([one for one, _ in parts])
    found = [_load(one, place, stem) for (one, place), stem in zip(parts, stems, strict=True)]
    examples = tuple(row for loaded in found for row in loaded.examples)
    ids = Counter(example.id for example in examples)
    if repeated := next((id_ for id_, count in ids.items() if count > 1), None):
        raise UserError(f"{where}: id '{repeated}' is in '{spec}' more than once")
    return LoadedData(examples, tuple(one for loaded in found for one in loaded.understood))


def data_from_rows(rows: Any, name: str, spec: DataSpec | None = None) -> LoadedData:
    """Rows given from Python: dicts, a `datasets.Dataset`, a DataFrame, or anything that yields dicts.

    Args:
        rows: the rows.
        name: of their split.
        spec: which of them are used, and what their fields are called. Default: all, by our names.

    Raises:
        UserError: as `load_data`; places are named `name[index]`.
    """
    located = []
    for index, row in enumerate(_iterable(rows, name)):
        if not isinstance(row, Mapping):
            raise UserError(f"{name}[{index}]: expected a dict with field names, found {type(row).__name__}")
        located.append(RawRow(f"{name}[{index}]", dict(row)))
    if not located:
        raise UserError(f"{name}: no rows")
    return _read_rows(RawTable(located), spec or DataSpec(name=name), name, _Stem(name), "given from Python")


def examples_from_rows(rows: Any, name: str) -> tuple[Example, ...]:
    """Rows given from Python as examples; see `data_from_rows`."""
    return data_from_rows(rows, name).examples


class _Stem(NamedTuple):
    """What the ids of rows without one begin with, and the number of the first."""

    text: str
    first: int = 0


def _parts(spec: DataSpec, where: str) -> Iterator[tuple[DataSpec, str]]:
    """Every data set of a split with its place in the configuration."""
    yield spec, where
    for index, more in enumerate(spec.also):
        yield from _parts(more, f"{where}.also.{index}")


def _stems(specs: Sequence[DataSpec]) -> list[_Stem]:
    """For each data set the name of its file; where several are called the same, as much of their paths as differs.

    Parts of one file that are named one after another are numbered as in the file.
    """
    plain = [Path(spec.name).stem for spec in specs]
    paths = [PurePath(spec.name) for spec in specs]
    full = [
        (*path.parent.parts, path.stem, *filter(None, (spec.subset, spec.split)))
        for path, spec in zip(paths, specs, strict=True)
    ]
    stems = []
    for place, spec in enumerate(specs):
        same = [other for other, stem in enumerate(plain) if stem == plain[place]]
        others = {full[other] for other in same} - {full[place]}
        first = spec.skip if full.count(full[place]) > 1 else 0
        if others:
            start = next(
                start
                for start in range(len(full[place]) - 1, -1, -1)
                if start == 0 or not any(one[-(len(full[place]) - start) :] == full[place][start:] for one in others)
            )
            stems.append(_Stem("/".join(part.strip("/") for part in full[place][start:]).strip("/"), first))
        else:
            stems.append(_Stem(plain[place], first))
    return stems


def _load(spec: DataSpec, where: str, stem: _Stem) -> LoadedData:
    return _read_rows(_read(spec, where), spec, where, stem, str(spec.model_copy(update={"also": ()})))


def _read_rows(table: RawTable, spec: DataSpec, where: str, stem: _Stem, source: str) -> LoadedData:
    reader = RowReader(spec.fields, spec.ignore or (), where)
    examples = reader.examples(table.rows, stem.text, spec.skip, spec.limit, stem.first)
    columns = reader.columns
    if not examples:
        kinds = f" but {', '.join(columns.left_out)}" if columns.left_out else ""
        after = f" after the first {spec.skip}" if spec.skip else ""
        raise UserError(f"{where}: '{source}' has no rows{kinds}{after}")
    if table.left_out:
        columns.left_out["blank rows"] += table.left_out
    understood = DataSummary(
        source=source,
        rows=len(examples),
        kinds=dict(Counter(_kind(example) for example in examples)),
        first=examples[0],
        used=dict(columns.used),
        unused=tuple(columns.unused),
        left_out=dict(columns.left_out),
        layouts=tuple(columns.layouts),
        encoding=table.encoding,
        separator=table.separator,
        warnings=(*table.warnings, *columns.warnings()),
    )
    return LoadedData(examples, (understood,))


def _kind(example: Example) -> str:
    if example.text is not None:
        return "documents"
    if example.prompt is not None:
        return "prompts"
    return "conversations" if example.history else "questions"


def _read(spec: DataSpec, where: str) -> RawTable:
    known = plugins.names("data/sources")
    if not spec.name.strip():
        raise UserError(f"{where}: an empty name; give a file, a shipped data set or a hub id")
    if "://" in spec.name:
        raise UserError(f"{where}: '{spec.name}' is a web address; download it and give the file")
    if spec.name in known:
        return RawTable(_shipped(spec, where))
    path = Path(spec.name).expanduser()
    if exists(path) or os.path.lexists(path) or path.suffix.lower() in endings():
        if given := next((key for key in ("subset", "options") if getattr(spec, key)), None):
            raise UserError(f"{where}: '{spec.name}' is a file, which has no {given}")
        return read(path, encoding=spec.encoding, split=spec.split)
    if spec.name.count("/") == 1 and not path.is_absolute() and not spec.name.startswith("."):
        return RawTable(_hub(spec, where))
    raise UserError(
        f"{where}: '{spec.name}' is neither a file, a shipped data set nor a hub id{near(spec.name, known)}"
    )


def _shipped(spec: DataSpec, where: str) -> list[RawRow]:
    kind = plugins.find("data/sources", spec.name, DataSource)  # type: ignore[type-abstract]
    split = spec.split or kind.splits[0]
    if split not in kind.splits:
        raise UserError(f"{where}: '{spec.name}' has no split '{split}'{near(split, kind.splits)}")
    if spec.subset:
        raise UserError(f"{where}: '{spec.name}' is a shipped data set, which has no subset")
    try:
        source = kind(kind.Config.model_validate(spec.options, strict=True))
    except ValidationError as error:
        first = error.errors()[0]
        option = ".".join(["options", *map(str, first["loc"])])
        raise UserError(f"{where}.{option}: {first['msg']} (got {first['input']!r})") from None
    try:
        rows = source.rows(split)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    return [RawRow(f"{spec.name}:{split}[{index}]", row) for index, row in enumerate(rows)]


def _hub(spec: DataSpec, where: str) -> list[RawRow]:
    try:
        return read_hub(spec.name, spec.subset, spec.split or "train")
    except UserError as error:
        raise UserError(f"{where}: {error}; without a network, save it as a .jsonl file and give its path") from None


def _iterable(rows: Any, name: str) -> Iterable[Any]:
    """Whatever holds rows as something that yields them one by one."""
    if hasattr(rows, "columns") and hasattr(rows, "to_dict"):  # pandas
        if len(set(rows.columns)) < len(rows.columns):
            raise UserError(f"{name}: a DataFrame with two columns of one name")
        return list(rows.to_dict("records"))
    if hasattr(rows, "to_dicts"):  # polars
        return list(rows.to_dicts())
    if hasattr(rows, "to_pylist"):  # pyarrow
        return list(rows.to_pylist())
    if isinstance(rows, Mapping):
        if rows and all(hasattr(one, "column_names") or hasattr(one, "features") for one in rows.values()):
            return _iterable(rows[split_of([str(key) for key in rows], "", name)], name)
        raise UserError(f"{name}: expected a list of rows, found one {type(rows).__name__}; put it into a list")
    if isinstance(rows, str | bytes) or not isinstance(rows, Iterable):
        raise UserError(f"{name}: expected rows, found {type(rows).__name__}")
    return rows
