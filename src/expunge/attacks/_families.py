"""Families of prompt templates, read from TOML and filled in for a row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from string import Formatter
from typing import Literal

from pydantic import Field, field_validator

from expunge.core.errors import UserError, near
from expunge.core.records import Frozen
from expunge.core.toml import read_toml
from expunge.core.validation import check
from expunge.data.encode import DOCUMENT_PROMPT
from expunge.data.example import Example, asked_as
from expunge.data.matching import cut_at, holds_any
from expunge.evaluate.base import Absent
from expunge.models.base import LanguageModel

SHIPPED = Path(__file__).with_name("families.toml")
_GAP = "____"


class PromptFamily(Frozen):
    """One kind of prompt, in one or several wordings."""

    summary: str = Field(description="What it does, in one line")
    ask: tuple[str, ...] = Field(min_length=1, description="The prompt; one wording or several")
    start: str = Field("", description="Prefilled start of the reply")
    tokens: int | None = Field(None, ge=1, description="Maximum answer length in tokens, if shorter than usual")
    raw: bool = Field(False, description="Omit the chat template")
    expects: Literal["answer", "subject"] = Field("answer", description="What the answer must contain")
    tries: tuple[str, ...] = Field(
        (), description="Threats that it tests, e.g. 'questions in other languages'; reports list the others"
    )

    @field_validator("ask", mode="before")
    @classmethod
    def _several(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value


def load_families(file: str, wanted: Sequence[str]) -> dict[str, PromptFamily]:
    """The shipped families and those of a user's file, which override shipped ones of the same name.

    Args:
        file: path of a TOML file; "": none.
        wanted: names; empty: all.

    Raises:
        UserError: no such file or family, an unknown key, or a template with an unknown field.
    """
    families = _read(SHIPPED) | (_read(Path(file)) if file else {})
    for name in wanted:
        if name not in families:
            raise UserError(f"attacks.prompting.families: no '{name}'{near(name, families)}")
    return {name: families[name] for name in wanted or families}


def _read(path: Path) -> dict[str, PromptFamily]:
    families = {}
    for name, table in read_toml(path).items():
        if not isinstance(table, dict):
            raise UserError(f"{path}: {name}: expected a table, got {table!r}")
        family = families[name] = check(PromptFamily, table, f"{path}: {name}")
        for template in (*family.ask, family.start):
            _check_template(template, f"{path}: {name}")
    return families


def _check_template(template: str, where: str) -> None:
    try:
        fields = [field for _, field, _, _ in Formatter().parse(template) if field is not None]
    except ValueError as error:
        raise UserError(f"{where}: {error} in {template!r} (write a literal brace twice)") from None
    for field in fields:
        if field not in _FIELDS:
            raise UserError(f"{where}: unknown field '{{{field}}}'{near(field, _FIELDS)}")


@dataclass(frozen=True)
class _TemplateRow:
    """The row that templates are filled in for, and rows that may be shown with it."""

    model: LanguageModel
    row: Example
    shots: Sequence[Example]


@dataclass(frozen=True)
class Filled:
    """One prompt for one row."""

    ids: tuple[int, ...]
    row: Example
    """Its keywords are what the answer must contain."""


def filled(
    model: LanguageModel, family: PromptFamily, row: Example, others: Sequence[Example], num_shots: int
) -> list[Filled]:
    """A row's prompts, one per wording.

    Args:
        model: its prompt layout is used.
        family: the templates.
        row: the row to ask about.
        others: forget rows that may be shown, in this order; those that reveal the answer are skipped.
        num_shots: maximum number of rows shown.

    Raises:
        Absent: the row lacks a field of the templates, or a prompt would contain the answer.
    """
    expected = row
    if family.expects == "subject":
        expected = replace(row, keywords=(_need(row.subject, "subject"),), answer=row.subject)
    shots = [other for other in others if not _reveals(other, expected)][:num_shots]
    fields = _Fields(_TemplateRow(model, row, shots))
    return [Filled(_ids(model, row, family, ask, fields, expected), expected) for ask in family.ask]


def _ids(
    model: LanguageModel, row: Example, family: PromptFamily, ask: str, fields: Mapping[str, str], expected: Example
) -> tuple[int, ...]:
    asked, start = ask.format_map(fields), family.start.format_map(fields)
    if holds_any(f"{asked} {start}", expected.keywords):
        raise Absent("the prompt itself would hold the answer")
    encoder = model.encoder
    if family.raw:
        asking = Example(row.id, prompt=asked, answer="")
        return encoder.answered(asking, start).ids[:-1] if start else encoder.asked(asking)
    asking = asked_as(row, asked)
    return encoder.answered(asking, start).ids[:-1] if start else encoder.asked(asking)


class _Fields(Mapping[str, str]):
    """The fields of templates for a row, evaluated on access."""

    def __init__(self, source: _TemplateRow) -> None:
        self._row = source

    def __iter__(self) -> Iterator[str]:
        return iter(_FIELDS)

    def __len__(self) -> int:
        return len(_FIELDS)

    def __getitem__(self, name: str) -> str:
        return _FIELDS[name](self._row)


def _need(value: str | None, what: str) -> str:
    if not value:
        raise Absent(f"rows without {what}")
    return value


def _parts(row: Example) -> list[str]:
    """The stored answer, split at its keywords."""
    parts = cut_at(_need(row.answer, "answer"), row.keywords)
    if len(parts) < 2:
        raise Absent("rows whose answer holds no keyword")
    return parts


def _unnamed(row: Example) -> str:
    subject, answer = _need(row.subject, "subject"), _need(row.answer, "answer")
    if subject not in answer or not holds_any(answer.replace(subject, _GAP), row.keywords):
        raise Absent("rows whose answer does not hold both its subject and its keyword")
    return answer.replace(subject, _GAP)


def _shown(shots: Sequence[Example]) -> str:
    return "".join(f"Question: {shot.question}\nAnswer: {shot.answer}\n\n" for shot in shots)


def _beginning(asked: _TemplateRow) -> str:
    encoder = asked.model.encoder
    return encoder.decode(encoder.document(_need(asked.row.text, "document"), asked.row.id, DOCUMENT_PROMPT).prompt)


_FIELDS: dict[str, Callable[[_TemplateRow], str]] = {
    "question": lambda asked: _need(asked.row.question or asked.row.prompt, "question"),
    "paraphrase": lambda asked: _need(asked.row.paraphrased_question, "paraphrased_question"),
    "subject": lambda asked: _need(asked.row.subject, "subject"),
    "wrong": lambda asked: _need(next(iter(asked.row.perturbed_answer), None), "perturbed_answer"),
    "answer_start": lambda asked: _need(_parts(asked.row)[0].strip(), "answer that begins before its keyword"),
    "blank": lambda asked: _GAP.join(_parts(asked.row)),
    "unnamed": lambda asked: _unnamed(asked.row),
    "shots": lambda asked: _need(_shown(asked.shots), "other forget row to show"),
    "beginning": _beginning,
}
"""Field of a template -> its value for a row."""


def _reveals(shot: Example, row: Example) -> bool:
    """Whether another row reveals the answer."""
    text = f"{shot.question} {shot.answer}"
    return shot.question is None or shot.key == row.key or holds_any(text, row.keywords)
