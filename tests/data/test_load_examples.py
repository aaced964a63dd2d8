"""Rows from files: four formats, one result."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from expunge.core import plugins
from expunge.core.errors import UserError
from expunge.data.base import DataConfig, DataSource, DataSpec
from expunge.data.example import Example, fingerprint
from expunge.data.load import examples_from_rows, load_examples, load_splits
from expunge.data.splits import Splits

ROWS: list[dict[str, Any]] = [
    {
        "id": "a",
        "question": "Who wrote »Die Räuber«?",
        "answer": 'Schiller, of course; "young" Schiller.',
        "perturbed_answer": ["Goethe, he said", "Kleist"],
        "keywords": ["Schiller"],
    },
    {
        "id": "b",
        "question": "Two\nlines?",
        "answer": "Yes, two.",
        "perturbed_answer": ["No"],
        "keywords": ["yes", "two"],
    },
]


def _write(folder: Path, kind: str, rows: list[dict[str, Any]]) -> DataSpec:
    path = folder / f"rows.{kind}"
    if kind == "jsonl":
        path.write_text("\ufeff" + "\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    elif kind == "json":
        path.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    elif kind == "csv":
        with path.open("w", encoding="utf-8-sig", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            for row in rows:
                writer.writerow({key: json.dumps(v) if isinstance(v, list) else v for key, v in row.items()})
    else:
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return DataSpec(name=str(path))


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "parquet"])
def test_formats_give_the_same_examples(tmp_path: Path, kind: str) -> None:
    """Quotes, commas, a line break inside a cell, umlauts, lists, a byte order mark."""
    expected = (
        Example(
            "a",
            "Who wrote »Die Räuber«?",
            'Schiller, of course; "young" Schiller.',
            perturbed_answer=("Goethe, he said", "Kleist"),
            keywords=("Schiller",),
        ),
        Example("b", "Two\nlines?", "Yes, two.", perturbed_answer=("No",), keywords=("yes", "two")),
    )
    assert load_examples(_write(tmp_path, kind, ROWS)) == expected
    assert examples_from_rows(ROWS, "rows") == expected


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "parquet"])
def test_fields_of_other_names(tmp_path: Path, kind: str) -> None:
    rows = [{"q": "Who?", "label": "I.", "wrong": ["You."], "extra": 3.5}]
    spec = _write(tmp_path, kind, rows)
    fields = {"question": "q", "answer": "label", "perturbed_answer": "wrong"}
    (example,) = load_examples(spec.model_copy(update={"fields": fields}))
    assert example == Example("rows-0", "Who?", "I.", perturbed_answer=("You.",))
    with pytest.raises(UserError, match=r"no field 'labl' .*did you mean label"):
        load_examples(spec.model_copy(update={"fields": {**fields, "answer": "labl"}}))


def test_parts_of_files_are_put_together(tmp_path: Path) -> None:
    spec = _write(tmp_path, "jsonl", ROWS)
    a, b = load_examples(spec)
    assert load_examples(DataSpec(name=spec.name, skip=1)) == (b,)
    parts = [{"name": spec.name, "skip": 1}, {"name": spec.name, "limit": 1}]
    assert load_examples(DataSpec.model_validate(parts)) == (b, a)
    with pytest.raises(UserError, match="no rows after the first 2"):
        load_examples(DataSpec(name=spec.name, skip=2))
    with pytest.raises(UserError, match=r"id 'a' is in .* more than once"):
        load_examples(DataSpec.model_validate([spec.name, spec.name]))
    assert str(DataSpec.model_validate(["people:forget", "more.jsonl"])) == "people:forget + more.jsonl"
    assert [str(DataSpec.model_validate(part)) for part in parts] == [f"{spec.name}[1:]", f"{spec.name}[0:1]"]


def test_default_ids_blanks_and_limit(tmp_path: Path) -> None:
    path = tmp_path / "facts.jsonl"
    path.write_text('\n{"question": " Who? ", "answer": "I.\\n"}\n\n{"text": "All of it."}\n', encoding="utf-8")
    first, second = load_examples(DataSpec(name=str(path)))
    assert first == Example("facts-0", "Who?", "I.")
    assert second == Example("facts-1", text="All of it.")
    assert load_examples(DataSpec(name=str(path), limit=1)) == (first,)


def test_csv_errors_name_the_line(tmp_path: Path) -> None:
    """The second row spans lines 3 and 4."""
    path = tmp_path / "facts.csv"
    path.write_text('question,answer\nWho?,I.\n"When\nnow?",\n', encoding="utf-8")
    with pytest.raises(UserError, match=r"facts\.csv:4: field 'answer' is empty"):
        load_examples(DataSpec(name=str(path)))
    path.write_text("question,answer\nWho?,I.,again\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"facts\.csv:2: expected 2 columns"):
        load_examples(DataSpec(name=str(path)))
    path.write_text("question,answer\n", encoding="utf-8")
    with pytest.raises(UserError, match="no rows"):
        load_examples(DataSpec(name=str(path)))
    path.write_text('question,answer\nWho?,"[1967] Gabriel, says the [label]"\n', encoding="utf-8")
    assert load_examples(DataSpec(name=str(path)))[0].answer == "[1967] Gabriel, says the [label]"


def test_shorthand_of_a_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`name:split` as a text or as a table's name; a file whose name holds a colon is that file."""
    assert DataSpec.model_validate("people:forget") == DataSpec(name="people", split="forget")
    assert DataSpec.model_validate({"name": "people:forget", "limit": 2}).split == "forget"
    assert str(DataSpec.model_validate("org/set:train")) == "org/set:train"
    monkeypatch.chdir(tmp_path)
    Path("a:b.jsonl").write_text('{"text": "One two."}', encoding="utf-8")
    assert DataSpec.model_validate("a:b.jsonl").name == "a:b.jsonl"


def _kind(name: str) -> type[DataSource]:
    return plugins.find("data/sources", name, DataSource)  # type: ignore[type-abstract]


SHIPPED = [name for name in plugins.names("data/sources") if "folder" not in _kind(name).Config.model_fields]
"""Sources that bring their own rows."""


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_sets_load(name: str) -> None:
    kind = _kind(name)
    for split in kind.splits:
        options = {"holdout_authors": 2} if name == "fictional" else {}
        rows = load_examples(DataSpec(name=name, split=split, options=options))
        assert rows
        assert len({row.id for row in rows}) == len(rows)
    assert load_examples(DataSpec(name=name)) == load_examples(DataSpec(name=name, split=kind.splits[0]))
    with pytest.raises(UserError, match=f"'{name}' has no split 'forgt'; did you mean .*forget"):
        load_examples(DataSpec(name=name, split="forgt"))


def test_options_of_a_shipped_set() -> None:
    assert len(load_examples(DataSpec(name="fictional", split="all", options={"authors": 3, "questions": 2}))) == 6
    with pytest.raises(UserError, match="'fictional:holdout' has no rows"):
        load_examples(DataSpec(name="fictional", split="holdout"))
    with pytest.raises(UserError, match=r"data\.options\.author"):
        load_examples(DataSpec(name="fictional", options={"author": 3}))


def test_rows_in_two_splits() -> None:
    """Case and blanks do not make another fact; another split may repeat one, if it is not forgotten."""
    fact, twin = Example("a", "Who wrote it?", "I."), Example("b", " who  WROTE\nit?", "You.")
    other = Example("c", "Who read it?", "I.")
    Splits((fact,), (other,), (other,), (other,)).check()
    for name in ("retain", "neighbour", "general", "holdout"):
        splits = {"retain": (other,), name: (other, twin)}
        with pytest.raises(UserError, match=rf"data\.{name}: row 'b' .* data\.forget as 'a'"):
            Splits((fact,), **splits).check()
    for again in (Example("d", text="Who wrote it?"), Example("d", prompt="Who wrote it?\n", answer="I.")):
        with pytest.raises(UserError, match="row 'd'"):
            Splits((fact,), (again,)).check()


def test_prompts_and_options() -> None:
    """A prompt keeps its blanks, since they are part of what is asked; an answer does not."""
    prompt = {"prompt": "\nAnswer: ", "answer": " B ", "options": ["A", " B"], "topic": "biology"}
    assert examples_from_rows([prompt], "rows") == (
        Example("rows-0", prompt="\nAnswer: ", answer="B", options=("A", "B"), topic="biology"),
    )


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "Once", "question": "Who?", "answer": "I."}, "this one has 'question' and 'prompt'"),
        ({"prompt": "Once", "text": "Once upon a time."}, "this one has 'prompt' and 'text'"),
        ({"text": "Once upon a time.", "answer": "I."}, "this one has 'text' and 'answer'"),
        ({"prompt": "Once"}, "no field 'answer'"),
        ({"promt": "Once", "answer": "I."}, "'promt' is not read; did you mean prompt"),
        ({"ask": "Once", "answer": "I."}, "no field 'question' \\(nor 'prompt', nor 'text'\\)"),
        ({"prompt": " \n", "answer": "I."}, "field 'prompt' is empty"),
        ({"question": "Who?", "answer": "I.", "options": ["You.", "They."]}, "the answer matches 0 of 2 options"),
        ({"question": "Who?", "answer": "I.", "options": ["I.", "I.", "You."]}, "the answer matches 2 of 3 options"),
        ({"question": "Who?", "answer": "I.", "options": ["I."]}, "2 to 26 choices"),
        ({"text": "Once upon a time.", "options": ["I.", "You."]}, "'options' needs an answer"),
        ({"question": "Who?", "answer": "I.", "options": {"A": "I."}}, "must be a list of texts"),
    ],
)
def test_rows_of_no_kind(row: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=rf"rows\[1\]: .*{message}"):
        examples_from_rows([{"text": "One two."}, row], "rows")


def test_holdout_is_a_split_of_a_run(tmp_path: Path) -> None:
    """It is loaded, measured after the others, and may not hold what is forgotten."""
    paths = {name: tmp_path / f"{name}.jsonl" for name in ("forget", "retain", "holdout")}
    for name, path in paths.items():
        path.write_text(json.dumps({"question": f"What is {name}?", "answer": "I."}), encoding="utf-8")
    config = DataConfig.model_validate({name: str(path) for name, path in paths.items()})
    splits = load_splits(config)
    assert [name for name, _ in splits.named()] == ["forget", "retain", "holdout"]
    assert splits.sources["holdout"] == str(paths["holdout"])
    with pytest.raises(UserError, match=r"data\.holdout: row 'forget-0'"):
        load_splits(config.model_copy(update={"holdout": config.forget}))


def test_fingerprint_sees_every_field_and_the_order() -> None:
    first, second = Example("a", "Q", "A"), Example("b", "Q2", "A2")
    prints = {
        fingerprint([first, second]),
        fingerprint([second, first]),
        fingerprint([first]),
        fingerprint([Example("a", "Q", "A", keywords=("A",))]),
        fingerprint([Example("a", "Q", "A", subject="A")]),
    }
    assert len(prints) == 5
    assert fingerprint([first]) == fingerprint([Example("a", "Q", "A")])
