"""What a caller gives from Python: names, paths, rows or a loaded model in the place of a file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from expunge.core.errors import UserError
from expunge.core.progress import Progress
from expunge.core.records import DataPrint
from expunge.core.validation import check
from expunge.data.base import spec_of
from expunge.data.example import Example, fingerprint
from expunge.data.load import Loaded, data_from_rows, load_data
from expunge.data.understood import Understood, unused_of
from expunge.models.base import LanguageModel
from expunge.models.config import ModelConfig
from expunge.models.load import load_model, wrap_model

Rows = str | Path | Iterable[Mapping[str, Any]]
"""A name, a path, or rows themselves."""


def read_data(name: str, given: Rows) -> Loaded:
    """The rows of a split, and how they were read.

    Raises:
        UserError: no such data, or rows that are none.
    """
    if isinstance(given, str | Path):
        return load_data(spec_of(str(given), f"data.{name}"), f"data.{name}")
    return data_from_rows(given, name)


def print_of(given: Rows, rows: Sequence[Example], understood: Sequence[Understood] = ()) -> DataPrint:
    """Where rows came from, in the caller's words, which they were, and what of them was not read."""
    source = str(given) if isinstance(given, str | Path) else "given from Python"
    return DataPrint(source=source, rows=len(rows), sha256=fingerprint(rows), unused=unused_of(understood))


def is_loaded(model: Any) -> bool:
    """Whether it is a network, and not the name of one."""
    return not isinstance(model, str | Path)


def model_name(model: Any) -> str:
    """What records call it."""
    return f"a loaded {type(model).__name__}" if is_loaded(model) else str(model)


def wrap(model: Any, tokenizer: Any, config: ModelConfig) -> LanguageModel:
    """A loaded network as ours.

    Raises:
        UserError: it came without its tokenizer.
    """
    if tokenizer is None:
        raise UserError("a loaded model needs its tokenizer too: tokenizer=...")
    return wrap_model(model, tokenizer, config)


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
