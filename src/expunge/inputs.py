"""Coerce Python inputs (names, paths, rows, loaded models) to what config files provide."""

from __future__ import annotations

import operator
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from expunge.core.errors import UserError, near
from expunge.core.progress import SILENT, Progress
from expunge.core.records import DataPrint
from expunge.core.schema import SPLITS
from expunge.core.toml import Tables
from expunge.core.validation import check
from expunge.data.base import DataConfig, DataSpec
from expunge.data.base import as_table as spec_table
from expunge.data.example import Example, fingerprint
from expunge.data.load import LoadedData, data_from_rows, load_data, splits_of
from expunge.data.splits import Splits
from expunge.data.summary import DataSummary, unused_of
from expunge.models.base import LanguageModel
from expunge.models.config import ModelConfig
from expunge.models.load import load_model, wrap_model
from expunge.models.load_checks import check_tokens

Rows = str | Path | Mapping[str, Any] | Iterable[Mapping[str, Any]]
"""A name, a path, a table of a run file (`{"name": "facts.jsonl", "limit": 20}`), or rows themselves."""
_OF_ROWS = ("fields", "ignore", "skip", "limit")
"""Keys of a data set's table that mean something for rows that are given themselves."""


def read_data(name: str, given: Rows) -> LoadedData:
    """The rows of a split, and how they were read.

    Raises:
        UserError: no such data, or rows that are none.
    """
    table = _spec_table(given)
    if table is not None:
        return load_data(check(DataSpec, spec_table(table), f"data.{name}"), f"data.{name}")
    return data_from_rows(_plain_rows(given, name), name)


def named_splits(given: Mapping[str, Rows | None], data: Tables) -> tuple[Tables, dict[str, Rows]]:
    """The `[data]` table of a run, and the rows that are given themselves.

    Args:
        given: split -> the caller's argument of this name.
        data: the caller's own `[data]` table: other keys, more splits, or options of the splits in `given`.

    Raises:
        UserError: nothing to forget or to keep, a split that is given twice, or options that rows do not have.
    """
    tables: Tables = {key: plain(value) for key, value in data.items() if key not in SPLITS}
    rows: dict[str, Rows] = {}
    for split in SPLITS:
        value, options = given.get(split), data.get(split)
        if value is None:
            value, options = options, {}
        if value is None:
            continue
        if options is not None and not (isinstance(options, Mapping) and "name" not in options):
            raise UserError(f"data.{split}: {split} is given twice; only options such as limit can be here beside it")
        options = plain(options or {})
        table = _spec_table(value)
        if table is None:
            if unknown := sorted(set(options) - set(_OF_ROWS)):
                raise UserError(f"data.{split}.{unknown[0]}: means nothing for rows{near(unknown[0], _OF_ROWS)}")
            rows[split] = value
            table = {"name": f"given from Python ({split})"}
        tables[split] = [*table, *([options] if options else [])] if isinstance(table, list) else {**table, **options}
    for split in ("forget", "retain"):
        if split not in tables:
            raise UserError(f"{split}: name the rows, e.g. {split}=rows or {split}='facts.jsonl'")
    return tables, rows


def read_splits(rows: Mapping[str, Rows], config: DataConfig) -> Splits:
    """All rows of a run: those that were given, and those that its configuration names.

    Raises:
        UserError: no such data, rows that are none, or splits that contradict each other.
    """
    specs: dict[str, DataSpec] = {split: one for split in SPLITS if (one := getattr(config, split)) is not None}
    loaded = {
        split: data_from_rows(_plain_rows(rows[split], split), split, spec)
        if split in rows
        else load_data(spec, f"data.{split}")
        for split, spec in specs.items()
    }
    return splits_of(loaded, {split: str(spec) for split, spec in specs.items()})


def print_of(given: Rows, rows: Sequence[Example], understood: Sequence[DataSummary] = ()) -> DataPrint:
    """Where rows came from, in the caller's words, which they were, and what of them was not read."""
    source = str(given) if isinstance(given, str | Path) else "given from Python"
    return DataPrint(source=source, rows=len(rows), sha256=fingerprint(rows), unused=unused_of(understood))


def prints_of(splits: Splits, truncated: Collection[str] = ()) -> dict[str, DataPrint]:
    """The same of every split that has rows.

    Args:
        splits: all rows.
        truncated: ids of rows that were cut to the model's context.
    """
    return {
        name: DataPrint(
            source=splits.sources.get(name, "given from Python"),
            rows=len(rows),
            sha256=fingerprint(rows),
            truncated=sum(row.id in truncated for row in rows),
            unused=unused_of(splits.understood.get(name, ())),
        )
        for name, rows in splits.named()
    }


def is_loaded(model: Any) -> bool:
    """Whether it is a network, and not the name of one."""
    return not isinstance(model, str | Path)


def model_name(model: Any) -> str:
    """Its name in records."""
    return f"a loaded {type(model).__name__}" if is_loaded(model) else str(model)


def check_model(model: Any, what: str) -> None:
    """Refuse what is neither a name nor a causal language model.

    Raises:
        UserError: it is something else.
    """
    if not is_loaded(model):
        if not str(model).strip():
            raise UserError(f"{what}: is empty; give a name, a path or a loaded model")
        return
    if isinstance(model, type):
        raise UserError(f"{what}: got the class {model.__name__}; load a model: {model.__name__}.from_pretrained(...)")
    if not (isinstance(model, torch.nn.Module) and hasattr(model, "config") and hasattr(model, "generate")):
        raise UserError(f"{what}: expected a name, a path or a loaded causal language model, got {_described(model)}")


def wrap(model: Any, tokenizer: Any, config: ModelConfig) -> LanguageModel:
    """A loaded network as ours.

    Raises:
        UserError: it is no causal language model, or came without its tokenizer.
    """
    check_model(model, "model")
    check_tokenizer(tokenizer)
    check_tokens(model, tokenizer)
    return wrap_model(model, tokenizer, config)


def check_tokenizer(tokenizer: Any) -> None:
    """Refuse what is no tokenizer.

    Raises:
        UserError: nothing was given, or something else.
    """
    if tokenizer is None:
        raise UserError("a loaded model needs its tokenizer too: tokenizer=...")
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise UserError(
            f"tokenizer: expected a loaded tokenizer of transformers, got {_described(tokenizer)}; "
            "e.g. AutoTokenizer.from_pretrained(...)"
        )


def read_model(model: Any, tokenizer: Any, options: Mapping[str, Any] | None, progress: Progress) -> LanguageModel:
    """A model by name or as a network.

    Args:
        model: embedded name, path, hub id, or a loaded causal LM.
        tokenizer: needed with a loaded model.
        options: further keys of `[model]`.
        progress: where to report.

    Raises:
        UserError: an unknown option, no such model, or no tokenizer.
    """
    config = check(ModelConfig, {**(options or {}), "name": model_name(model)}, "model")
    return wrap(model, tokenizer, config) if is_loaded(model) else load_model(config, progress)


def plain(value: Any) -> Any:
    """Tables and rows with the types that files have: lists for tuples and sets, Python's numbers, text for paths."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return sorted((plain(item) for item in value), key=str)
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.generic | np.ndarray):
        return plain(value.tolist())
    return str(value) if isinstance(value, os.PathLike) else value


def as_table(value: Any, what: str) -> Tables:
    """A caller's table; None is an empty one.

    Raises:
        UserError: it is something else.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise UserError(f"{what}: expected a dict of options, got {_described(value)}")
    return dict(value) if what == "data" else plain(value)


def as_settings(value: Any) -> list[str]:
    """`a.b=c` strings; one string alone is a list of it.

    Raises:
        UserError: something else.
    """
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list | tuple) or not all(isinstance(item, str) for item in items):
        raise UserError(f"settings: expected strings such as 'train.lr=1e-5', got {_described(value)}")
    return list(items)


def as_seed(value: Any) -> int:
    """A seed; numpy's integers are integers.

    Raises:
        UserError: no integer, or a negative one.
    """
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        seed = operator.index(value)
    except TypeError:
        raise UserError(f"seed: expected an integer, got {_described(value)}") from None
    if seed < 0:
        raise UserError(f"seed: input should be greater than or equal to 0, got {seed}")
    return seed


def as_path(value: Any, what: str) -> Path:
    """A path.

    Raises:
        UserError: it is something else, or empty.
    """
    if not isinstance(value, str | os.PathLike) or not str(value).strip():
        raise UserError(f"{what}: expected a path, got {_described(value)}")
    return Path(value)


def as_progress(value: Any) -> Progress:
    """Where to report; None is silent.

    Raises:
        UserError: it cannot be reported to.
    """
    if value is None:
        return SILENT
    if isinstance(value, type) or not (hasattr(value, "bar") and hasattr(value, "say")):
        raise UserError(f"progress: expected an expunge.core.progress.Progress or None, got {_described(value)}")
    progress: Progress = value
    return progress


def _described(value: Any) -> str:
    if isinstance(value, type):
        return f"the class {value.__name__}"
    return repr(value)[:60] if value is None or isinstance(value, str | int | float) else type(value).__name__


def _spec_table(given: Any) -> Any:
    """The table, or list of tables, that names data; None for rows."""
    if isinstance(given, str | os.PathLike):
        return {"name": str(given)}
    if isinstance(given, Mapping):
        return plain(given) if _names_data(given) else None
    if isinstance(given, list) and given and all(isinstance(one, Mapping) and _names_data(one) for one in given):
        return plain(given)
    return None


def _names_data(table: Mapping[Any, Any]) -> bool:
    """Whether it is a data set's table: a row may have a field `name`, but then it has others too."""
    return isinstance(table.get("name"), str | os.PathLike) and set(table) <= set(DataSpec.model_fields)


def _plain_rows(given: Any, name: str) -> Any:
    """Rows with plain values; what holds rows in a way of its own (data sets, tables) is left to the reader."""
    if given is None:
        raise UserError(f"{name}: expected rows, a name or a path, got None")
    if isinstance(given, list | tuple):
        return [plain(row) if isinstance(row, Mapping) else row for row in given]
    return given
