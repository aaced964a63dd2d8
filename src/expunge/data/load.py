"""From a `DataSpec`, a list of dicts or a `datasets.Dataset` to checked examples."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from expunge.core import plugins
from expunge.core.errors import UserError, near
from expunge.data.base import DataConfig, DataSpec, Source
from expunge.data.choices import MOST_OPTIONS
from expunge.data.example import SPLITS, Example, Splits
from expunge.data.sources import _files
from expunge.data.sources._files import Located
from expunge.data.sources._tables import read_hub

FIELDS = tuple(field.name for field in dataclasses.fields(Example))
_LIST_FIELDS = ("perturbed_answer", "keywords", "options")
_ASKED_FIELDS = ("question", "prompt", "text")
_AS_THEY_STAND = ("prompt", "answer_start")


def load_splits(config: DataConfig) -> Splits:
    """Load and check every split that the configuration names.

    Raises:
        UserError: see `load_examples` and `Splits.check`.
    """
    specs = {name: getattr(config, name) for name in SPLITS}
    rows = {name: load_examples(spec, f"data.{name}") for name, spec in specs.items() if spec is not None}
    splits = Splits(**rows, sources={name: str(spec) for name, spec in specs.items() if spec is not None})
    splits.check()
    return splits


def load_examples(spec: DataSpec, where: str = "data") -> tuple[Example, ...]:
    """Rows of one split as examples.

    Args:
        spec: which data.
        where: dotted path of the spec in the configuration, for messages.

    Raises:
        UserError: unknown name, missing or empty file, malformed row, missing field, empty answer, repeated id.
    """
    located = _read(spec, where)[spec.skip :][: spec.limit]
    if not located:
        raise UserError(f"{where}: '{spec}' has no rows" + (f" after the first {spec.skip}" if spec.skip else ""))
    examples = _examples(located, spec.fields, stem=Path(spec.name).stem)
    for index, more in enumerate(spec.also):
        examples += load_examples(more, f"{where}.also.{index}")
    ids = [example.id for example in examples]
    if repeated := next((id_ for id_, count in Counter(ids).items() if count > 1), None):
        raise UserError(f"{where}: id '{repeated}' is in '{spec}' more than once")
    return examples


def examples_from_rows(rows: Iterable[Mapping[str, Any]], name: str) -> tuple[Example, ...]:
    """Rows given from Python (dicts, or a `datasets.Dataset`) as examples.

    Raises:
        UserError: as `load_examples`; places are named `name[index]`.
    """
    located = []
    for index, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise UserError(f"{name}[{index}]: expected a dict with field names, found {type(row).__name__}")
        located.append(Located(f"{name}[{index}]", dict(row)))
    if not located:
        raise UserError(f"{name}: no rows")
    return _examples(located, {}, stem=name)


def _read(spec: DataSpec, where: str) -> list[Located]:
    path = Path(spec.name)
    known = plugins.names("data/sources")
    if spec.name in known:
        return _shipped(spec, where)
    if path.exists() or path.suffix in _files.ENDINGS:
        given = next((key for key in ("split", "subset", "options") if getattr(spec, key)), None)
        if given:
            raise UserError(f"{where}: '{spec.name}' is a file, which has no {given}")
        return _files.read(path)
    if spec.name.count("/") == 1 and not path.is_absolute() and not spec.name.startswith("."):
        return _hub(spec, where)
    raise UserError(
        f"{where}: '{spec.name}' is neither a file, a shipped data set nor a hub id{near(spec.name, known)}"
    )


def _shipped(spec: DataSpec, where: str) -> list[Located]:
    kind = plugins.find("data/sources", spec.name, Source)  # type: ignore[type-abstract]
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
    return [Located(f"{spec.name}:{split}[{index}]", row) for index, row in enumerate(rows)]


def _hub(spec: DataSpec, where: str) -> list[Located]:
    try:
        return read_hub(spec.name, spec.subset, spec.split or "train")
    except UserError as error:
        raise UserError(f"{where}: {error}; without a network, save it as a .jsonl file and give its path") from None


def _examples(located: list[Located], fields: Mapping[str, str], stem: str) -> tuple[Example, ...]:
    if unknown := sorted(set(fields) - set(FIELDS)):
        raise UserError(f"fields: unknown field '{unknown[0]}'{near(unknown[0], FIELDS)}")
    examples = [_example(item, fields, f"{stem}-{index}") for index, item in enumerate(located)]
    seen: dict[str, str] = {}
    for example, item in zip(examples, located, strict=True):
        if example.id in seen:
            raise UserError(f"{item.where}: id '{example.id}' was already used at {seen[example.id]}")
        seen[example.id] = item.where
    return tuple(examples)


def _example(item: Located, fields: Mapping[str, str], default_id: str) -> Example:
    values: dict[str, Any] = {"id": default_id}
    for field in FIELDS:
        theirs = fields.get(field, field)
        if theirs in item.row and item.row[theirs] is not None:
            read = _strings if field in _LIST_FIELDS else _string
            values[field] = read(item.row[theirs], field, theirs, item.where)
        elif field in fields:
            raise UserError(f"{item.where}: no field '{theirs}' (for {field}){near(theirs, item.row)}")
    _check_kind(values, item)
    return Example(**values)


def _check_kind(values: Mapping[str, Any], item: Located) -> None:
    """Refuse a row that is not exactly one of a question, a prompt and a text, or whose options lack the answer."""
    asked = [field for field in _ASKED_FIELDS if field in values]
    if not asked:
        raise UserError(f"{item.where}: no field 'question' (nor 'prompt', nor 'text'){near('question', item.row)}")
    if len(asked) > 1 or ("text" in asked and "answer" in values):
        both = " and ".join(f"'{field}'" for field in (*asked, "answer")[:2])
        raise UserError(
            f"{item.where}: a row is either a question or a prompt with its answer, or a text; this one has {both}"
        )
    if asked != ["text"] and "answer" not in values:
        raise UserError(f"{item.where}: no field 'answer' (nor 'text'){near('answer', item.row)}")
    if "answer_start" in values and "question" not in values:
        raise UserError(f"{item.where}: field 'answer_start' needs a question")
    if "options" not in values:
        return
    if "answer" not in values or not 2 <= len(values["options"]) <= MOST_OPTIONS:
        raise UserError(f"{item.where}: field 'options' needs an answer and 2 to {MOST_OPTIONS} choices")
    if (count := values["options"].count(values["answer"])) != 1:
        raise UserError(
            f"{item.where}: the answer stands {count} times among the {len(values['options'])} options; must be once"
        )


def _string(value: object, field: str, theirs: str, where: str) -> str:
    if field == "id" and isinstance(value, int):
        return str(value)
    if not isinstance(value, str):
        raise UserError(f"{where}: field '{theirs}' must be text, found {type(value).__name__} ({value!r:.40})")
    if not value.strip():
        raise UserError(f"{where}: field '{theirs}' is empty")
    if any("\ud800" <= letter <= "\udfff" for letter in value):
        raise UserError(f"{where}: field '{theirs}' holds half of a surrogate pair, which is no character")
    return value if field in _AS_THEY_STAND else value.strip()


def _strings(value: object, field: str, theirs: str, where: str) -> tuple[str, ...]:
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list):
        raise UserError(f"{where}: field '{theirs}' must be a list of texts, found {type(value).__name__}")
    return tuple(_string(item, field, theirs, where) for item in items)
