"""Raw rows to examples, with an account of the columns that were read and of those that were not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from expunge.core.errors import UserError, near
from expunge.data.choices import MOST_OPTIONS
from expunge.data.example import Example
from expunge.data.formats.base import RawRow
from expunge.data.matching import check_keywords
from expunge.data.names import FIELDS, alike, canonical, shapes, slip_of
from expunge.data.shapes.base import Shape
from expunge.data.values import (
    answers_like,
    is_empty,
    is_number,
    keywords_in,
    options_with,
    plain,
    quoted_list,
    text_of,
    texts_of,
    turns_of,
)

_ASKED_FIELDS = ("question", "prompt", "text")
_VERBATIM = ("prompt", "answer_start")
_NO_NUMBERS = (*_ASKED_FIELDS, "paraphrased_question", "answer_start", "system")
"""Where a number is a sign of the wrong column."""
_OF_A_QUESTION = ("answer_start", "system", "history")
_OF_AN_ANSWER = ("original_answer", "golden_answer")
_BLANK = "blank texts"
_MISSING = ("nan", "NaN", "null", "None", "<NA>")
"""How a missing value looks that some program turned into a text."""
_REPLACEMENT = "\ufffd"


@dataclass
class Columns:
    """How the columns of all rows were used."""

    used: dict[str, str] = field(default_factory=dict)
    """Our field -> where its value came from."""
    unused: dict[str, str] = field(default_factory=dict)
    """Column -> the first row that has it."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Reason -> rows."""
    layouts: dict[str, None] = field(default_factory=dict)
    """Published layouts among the rows."""
    replaced: int = 0
    """Rows with U+FFFD, the replacement for characters that could not be decoded."""
    missing: Counter[str] = field(default_factory=Counter)
    """Field whose whole text is a word for what is missing -> rows."""

    def warnings(self) -> list[str]:
        """Sentences about what is probably a mistake."""
        found = []
        for column, where in self.unused.items():
            if known := alike(column):
                found.append(f"column '{column:.40}' is not used, but its name is like '{known}' (first at {where})")
        for name, count in self.missing.items():
            found.append(f"field '{name}' is the word nan, null or None in {count} rows; leave a missing value empty")
        if self.replaced:
            found.append(f"{self.replaced} rows hold U+FFFD, the mark of wrongly decoded text")
        return found


class RowReader:
    """Reads the rows of one data set.

    Args:
        fields: our field -> the column that holds it.
        ignore: columns that are left out.
        where: dotted path of the data set in the configuration, for messages.

    Raises:
        UserError: a field that is none.
    """

    def __init__(self, fields: Mapping[str, str], ignore: Sequence[str] = (), where: str = "") -> None:
        dotted = f"{where}.fields" if where else "fields"
        if unknown := sorted(set(fields) - set(FIELDS)):
            raise UserError(f"{dotted}: unknown field '{unknown[0]}'{near(unknown[0], FIELDS)}")
        self._fields = dict(fields)
        self._ignore = set(ignore)
        self.columns = Columns()

    def examples(
        self, located: Sequence[RawRow], stem: str, skip: int = 0, limit: int | None = None, first: int = 0
    ) -> tuple[Example, ...]:
        """Rows as examples; blank ones are counted and left out.

        Args:
            located: raw rows.
            stem: what ids begin with where rows have none.
            skip: leave out this many rows at the start.
            limit: read no more than this many.
            first: number of the first row that is read, in its id.

        Raises:
            UserError: a malformed row, a missing field, an id that is there twice.
        """
        self._check_ignored(located)
        examples: list[Example] = []
        seen: dict[str, str] = {}
        met = 0
        for item in located:
            if limit is not None and len(examples) == limit:
                break
            if any(not isinstance(name, str) for name in item.row):
                raise UserError(f"{item.where}: column names must be text")
            row = {name: plain(value) for name, value in item.row.items() if name not in self._ignore}
            mapped = self._mapped(row, item.where, strict=met >= skip)
            if reason := _left_out(mapped):
                self.columns.left_out[reason] += met >= skip
                continue
            met += 1
            if met <= skip:
                continue
            example = self._example(mapped, item.where, f"{stem}-{first + len(examples)}")
            if example.id in seen:
                raise UserError(f"{item.where}: id '{example.id}' was already used at {seen[example.id]}")
            seen[example.id] = item.where
            examples.append(example)
        return tuple(examples)

    def _check_ignored(self, located: Sequence[RawRow]) -> None:
        there = {name for item in located for name in item.row}
        if unknown := sorted(self._ignore - there):
            raise UserError(f"ignore: no column '{unknown[0]}'{near(unknown[0], map(str, there))}")

    def _mapped(self, row: dict[str, Any], where: str, *, strict: bool) -> dict[str, Any]:
        """The row under our names: mapped columns first, then those that only differ in case and white space.

        Args:
            row: as it is in the file.
            where: its place, for messages.
            strict: refuse it if it lacks a mapped column.
        """
        taken = set(self._fields.values())
        found: dict[str, Any] = {}
        for ours, theirs in self._fields.items():
            if theirs not in row and strict:
                raise UserError(f"{where}: no field '{theirs}' (for {ours}){near(theirs, row)}")
            found[ours] = row.get(theirs)
            self.columns.used[ours] = theirs
        origin: dict[str, str] = {}
        for column, value in row.items():
            name = canonical(column)
            if column in taken:
                continue
            if name in self._fields:  # the user named another column for it
                self.columns.unused.setdefault(column, where)
                continue
            if name in origin:
                raise UserError(f"{where}: '{origin[name]}' and '{column}' are both read as '{name}'; ignore one")
            origin[name] = column
            found[name] = value
            if name != column:
                self.columns.used[name] = column
        return found

    def _example(self, row: dict[str, Any], where: str, default_id: str) -> Example:
        filled = {name: value for name, value in row.items() if not is_empty(value)}
        filled = self._in_our_fields(filled, where)
        for column in filled:
            if column not in FIELDS:
                self._unused(column, row, where)
        for name in row:
            if name in FIELDS and name in filled:
                self.columns.used.setdefault(name, name)
        values = _values({name: value for name, value in filled.items() if name in FIELDS}, where)
        _check_kind(values, row, where)
        check_keywords(values.get("keywords", ()), where)
        for name, value in values.items():
            texts = value if isinstance(value, tuple) else (value,)
            self.columns.missing[name] += any(one in _MISSING for one in texts)
        self.columns.missing += Counter()  # drops the zeros
        self.columns.replaced += any(_REPLACEMENT in value for value in values.values() if isinstance(value, str))
        return Example(**{"id": default_id, **values})

    def _in_our_fields(self, row: dict[str, Any], where: str) -> dict[str, Any]:
        """A row of a published layout as a row of our fields."""
        fitting = [shape for shape in shapes() if shape.fits(row)]
        if not fitting:
            return row
        if len(fitting) > 1:
            names = [_name(shape) for shape in fitting]
            columns = [next(name for name in shape.read(row, where).columns) for shape in fitting]
            raise UserError(
                f"{where}: this row is {names[0]} by '{columns[0]}' and {names[1]} by '{columns[1]}'; "
                "leave one out (ignore = [...]) or name the fields (fields = {...})"
            )
        read = fitting[0].read(row, where)
        self.columns.layouts[_name(fitting[0])] = None
        rest = {name: value for name, value in row.items() if name not in read.columns}
        if twice := [name for name in read.values if name in rest]:
            raise UserError(
                f"{where}: '{twice[0]}' is a column of this row and also in {read.used[twice[0]]}; leave one out "
                "(ignore = [...])"
            )
        for name, column in read.used.items():
            self.columns.used[name] = column
        return {**rest, **read.values}

    def _unused(self, column: str, row: Mapping[str, Any], where: str) -> None:
        """Note a column that is not read; refuse one that is meant for a field that would be missed."""
        if (meant := slip_of(column)) and is_empty(row.get(meant)):
            raise UserError(
                f"{where}: column '{column}' is not read; did you mean {meant}? Map it "
                f'(fields = {{ {meant} = "{column}" }}) or leave it out (ignore = ["{column}"])'
            )
        self.columns.unused.setdefault(column, where)


def _name(shape: Shape) -> str:
    return type(shape).__module__.rpartition(".")[2]


def _left_out(row: Mapping[str, Any]) -> str | None:
    """Why a row is left out without being an error; None if it is an example or an error."""
    filled = {name: value for name, value in row.items() if not is_empty(value)}
    if "text" in row and not (set(filled) & set(FIELDS)) - {"id"}:
        stands_for_more = any(shape.fits({**filled, "text": "a text"}) for shape in shapes())
        return None if stands_for_more else _BLANK
    return next((reason for shape in shapes() if (reason := shape.left_out(row))), None)


def _values(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Every field of a row as an example holds it."""
    values: dict[str, Any] = {}
    if "answer" in row:
        answers = _answers(row["answer"], where)
        values["answer"] = answers[0]
        others = [*answers[1:], *_more(row, answers[0], where)]
        if unique := tuple(dict.fromkeys(one for one in others if one != answers[0])):
            values["accepted_answers"] = unique
    elif "accepted_answers" in row:
        raise UserError(f"{where}: field 'accepted_answers' needs an answer")
    answer = values.get("answer", "")
    lists = {"perturbed_answer": answers_like(answer), "keywords": keywords_in(answer), "options": options_with(answer)}
    for name, value in row.items():
        if name in lists:
            values[name] = texts_of(value, name, where, lists[name])
        elif name == "history":
            values[name] = turns_of(value, name, where)
        elif name not in ("answer", "accepted_answers"):
            numbers = name not in _NO_NUMBERS
            if name == "answer_start" and is_number(value):
                raise UserError(
                    f"{where}: field 'answer_start' is a number; it is the text that an answer begins with. "
                    'An offset is left out: ignore = ["answer_start"]'
                )
            values[name] = text_of(value, name, where, numbers=numbers, verbatim=name in _VERBATIM)
    return values


def _answers(value: Any, where: str) -> tuple[str, ...]:
    """The right answer, and others that are as right, where a list gives several."""
    if isinstance(value, dict) and isinstance(value.get("value"), str):  # TriviaQA
        value = [value["value"], *(value.get("aliases") or [])]
    if isinstance(value, dict) and "text" in value:
        value = value["text"]
    listed = quoted_list(value) if isinstance(value, str) else value
    if isinstance(listed, list):
        return tuple(text_of(one, "answer", where) for one in listed)
    return (text_of(value, "answer", where),)


def _more(row: Mapping[str, Any], answer: str, where: str) -> tuple[str, ...]:
    if "accepted_answers" not in row:
        return ()
    return texts_of(row["accepted_answers"], "accepted_answers", where, answers_like(answer))


def _check_kind(values: Mapping[str, Any], row: Mapping[str, Any], where: str) -> None:
    """Refuse a row that is not exactly one of a question, a prompt and a text, or whose options lack the answer."""
    asked = [field for field in _ASKED_FIELDS if field in values]
    if not asked:
        _missing("question", "(nor 'prompt', nor 'text')", row, where)
    if len(asked) > 1 or ("text" in asked and "answer" in values):
        both = " and ".join(f"'{field}'" for field in (*asked, "answer")[:2])
        raise UserError(
            f"{where}: a row is either a question or a prompt with its answer, or a text; this one has {both}"
        )
    if asked != ["text"] and "answer" not in values:
        _missing("answer", "(nor 'text')", row, where)
    for name in _OF_A_QUESTION:
        if name in values and "question" not in values:
            raise UserError(f"{where}: field '{name}' needs a question")
    for name in _OF_AN_ANSWER:
        if name in values and "answer" not in values:
            raise UserError(f"{where}: field '{name}' needs an answer")
    if "golden_answer" in values and "options" in values:
        raise UserError(f"{where}: 'golden_answer' and 'options' exclude each other: the options hold the answer")
    if "options" not in values:
        return
    if "answer" not in values or not 2 <= len(values["options"]) <= MOST_OPTIONS:
        raise UserError(f"{where}: field 'options' needs an answer and 2 to {MOST_OPTIONS} choices")
    if (count := values["options"].count(values["answer"])) != 1:
        raise UserError(f"{where}: the answer matches {count} of {len(values['options'])} options; expected exactly 1")


def _missing(name: str, other: str, row: Mapping[str, Any], where: str) -> None:
    if name in row and is_empty(row[name]):
        raise UserError(f"{where}: field '{name}' is empty")
    empty = [field for field in _ASKED_FIELDS if field in row and is_empty(row[field])]
    if name == "question" and empty:
        raise UserError(f"{where}: field '{empty[0]}' is empty")
    raise UserError(f"{where}: no field '{name}' {other}{near(name, row)}")
