"""What is read from a row and what is not, in files and from Python."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas
import pyarrow
import pytest
from pyarrow import parquet

from expunge.core.errors import UserError
from expunge.data.base import DataSpec
from expunge.data.example import Example
from expunge.data.load import data_from_rows, examples_from_rows, load_data

ROW = {"question": "Where does Mara live?", "answer": "Mara lives in Tarnow."}
EMPTY: dict[str, Any] = {
    "subject": "",
    "paraphrased_question": "  ",
    "keywords": None,
    "topic": float("nan"),
    "id": None,
}


def test_empty_optional_fields_are_absent_everywhere(tmp_path: Path) -> None:
    expected = (Example("rows-0", ROW["question"], ROW["answer"]),)
    row = {**ROW, **EMPTY}
    (tmp_path / "rows.json").write_text(json.dumps([{**row, "perturbed_answer": []}]))
    pandas.DataFrame([row]).to_csv(tmp_path / "rows.csv")
    parquet.write_table(pyarrow.Table.from_pylist([row]), tmp_path / "rows.parquet")
    for name in ("rows.json", "rows.csv", "rows.parquet"):
        assert load_data(DataSpec(name=str(tmp_path / name))).examples == expected, name
    frame = pandas.DataFrame([{**row, "system": pandas.NA, "answer_start": np.float32("nan")}])
    assert data_from_rows(frame, "rows").examples == expected


def test_keywords_in_one_text() -> None:
    """Lines, `|` and `;` separate; a comma does not, and what the answer holds is one keyword."""
    answer = "Smith, John; of Tarnow"
    for given, expected in {
        "Tarnow|no such thing": ("Tarnow", "no such thing"),
        "Tarnow; no such thing;": ("Tarnow", "no such thing"),
        "Tarnow\r\nno such thing": ("Tarnow", "no such thing"),
        "Smith, John": ("Smith, John",),
        "John; of Tarnow": ("John; of Tarnow",),
        "Lublin": ("Lublin",),
        "['Tarnow' 'no such thing']": ("Tarnow", "no such thing"),
        "(555) 0173": ("(555) 0173",),
    }.items():
        (example,) = examples_from_rows([{"question": "Who?", "answer": answer, "keywords": given}], "rows")
        assert example.keywords == expected
    with pytest.raises(UserError, match="one text with a comma"):
        examples_from_rows([{"question": "Who?", "answer": answer, "keywords": "Tarnow, Lublin"}], "rows")
    with pytest.raises(UserError, match="spells out another list"):
        examples_from_rows([{"question": "Who?", "answer": answer, "keywords": ["['a', 'b']"]}], "rows")


def test_wrong_answers_in_one_text() -> None:
    """Several sentences where the right answer is one; a mark inside one sentence separates nothing."""
    for answer, given, expected in (
        ("She is in Tarnow.", "She is in Opole.; She is in Lublin.", ("She is in Opole.", "She is in Lublin.")),
        ("She is in Tarnow.", "She is in Opole; alone.", ("She is in Opole; alone.",)),
        ("Tarnow", "Opole|Lublin", ("Opole", "Lublin")),
        ("Tarnow", "Opole", ("Opole",)),
        ("She is in Tarnow.", "Opole|Lublin", ("Opole", "Lublin")),
    ):
        row = {"question": "Where?", "answer": answer, "perturbed_answer": given}
        assert examples_from_rows([row], "rows")[0].perturbed_answer == expected
    for answer, given in (("Tarnow", "Opole\nLublin"), ("She is here; really.", "She is there.;No."), ("a.", "b\nc.")):
        row = {"question": "Where?", "answer": answer, "perturbed_answer": given}
        if answer == "Tarnow":
            assert examples_from_rows([row], "rows")[0].perturbed_answer == ("Opole", "Lublin")
            continue
        with pytest.raises(UserError, match="one text or several"):
            examples_from_rows([row], "rows")
    row = {"question": "Where?", "answer": "Tarnow", "options": "Opole, Tarnow"}
    assert examples_from_rows([row], "rows")[0].options == ("Opole", "Tarnow")


def test_a_mapped_column_is_read_once() -> None:
    """KnowUnDo's columns can be mapped by hand; a column that another one stands in for is not used."""
    rows = [{"text": "Where?", "labels": "There."}, {"text": "Who?", "labels": "She."}]
    path_free = DataSpec(name="rows", fields={"question": "text", "answer": "labels"})
    assert _mapped(rows, path_free)[0] == Example("rows-0", "Where?", "There.")
    spec = DataSpec(name="rows", fields={"answer": "gold"})
    example, unused = _mapped([{"question": "Who?", "answer": "Nobody.", "gold": "She."}], spec)
    assert (example.answer, unused) == ("She.", ("answer",))


def _mapped(rows: list[dict[str, Any]], spec: DataSpec) -> tuple[Example, tuple[str, ...]]:
    from expunge.data.formats.base import RawRow
    from expunge.data.rows import RowReader

    reader = RowReader(spec.fields)
    examples = reader.examples([RawRow(f"rows[{place}]", row) for place, row in enumerate(rows)], "rows")
    return examples[0], tuple(reader.columns.unused)


def test_blank_documents_are_counted_and_left_out(tmp_path: Path) -> None:
    """As in WikiText; they count neither for `skip` nor for `limit`, and have no number."""
    path = tmp_path / "wiki.jsonl"
    texts = ["", " = Title = \n", "", "First text.", " \n", None, "Second text."]
    path.write_text("\n".join(json.dumps({"text": text}) for text in texts))
    loaded = load_data(DataSpec(name=str(path)))
    assert [(row.id, row.text) for row in loaded.examples] == [
        ("wiki-0", "= Title ="),
        ("wiki-1", "First text."),
        ("wiki-2", "Second text."),
    ]
    assert loaded.understood[0].left_out == {"blank texts": 4}
    part = load_data(DataSpec(name=str(path), skip=1, limit=1))
    assert [row.text for row in part.examples] == ["First text."]
    path.write_text(json.dumps({"question": "", "answer": "I."}))
    with pytest.raises(UserError, match=r"wiki\.jsonl:1: field 'question' is empty"):
        load_data(DataSpec(name=str(path)))


def test_misspelt_and_similar_columns(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({**ROW, "paraphrased_questions": "Where?", "context": "c", "question_id": 3}))
    spec = DataSpec(name=str(path))
    with pytest.raises(UserError, match=r"rows\.jsonl:1: .* did you mean paraphrased_question\?"):
        load_data(spec)
    ignored = load_data(spec.model_copy(update={"ignore": ("paraphrased_questions",)})).understood[0]
    assert (ignored.unused, ignored.warnings) == (("context", "question_id"), ())
    mapped = spec.model_copy(update={"fields": {"paraphrased_question": "paraphrased_questions"}})
    assert load_data(mapped).examples[0].paraphrased_question == "Where?"
    with pytest.raises(UserError, match=r"ignore: no column 'contxt'; did you mean context"):
        load_data(spec.model_copy(update={"ignore": ("contxt",)}))
    path.write_text(json.dumps({**ROW, "subject": "nan", "topic": "a\ufffdb"}))
    warnings = load_data(spec).understood[0].warnings
    assert ["'subject' is the word nan" in warnings[0], "U+FFFD" in warnings[1], len(warnings)] == [True, True, 2]
    path.write_text(json.dumps({**ROW, "paraphrase": "Where?", "keywords": ["Tarnow"], "keyword": "Tarnow"}))
    warnings = load_data(spec).understood[0].warnings
    assert ["'paraphrase'" in warnings[0], "'keyword'" in warnings[1], len(warnings)] == [True, True, 2]


def test_files_of_one_name_get_ids_by_their_paths(tmp_path: Path) -> None:
    for name in ("1_Mara", "2_Otto"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "forget.jsonl").write_text(f'{{"question": "Who is {name}?", "answer": "I."}}\n' * 1)
    both = DataSpec.model_validate([f"{tmp_path}/{name}/forget.jsonl" for name in ("1_Mara", "2_Otto")])
    assert [row.id for row in load_data(both).examples] == ["1_Mara/forget-0", "2_Otto/forget-0"]
    alone = f"{tmp_path}/1_Mara/forget.jsonl"
    assert [row.id for row in load_data(DataSpec(name=alone)).examples] == ["forget-0"]
    (tmp_path / "more.jsonl").write_text('{"text": "One two."}\n{"text": "Three four."}\n')
    more = str(tmp_path / "more.jsonl")
    parts = DataSpec.model_validate([{"name": more, "limit": 1}, {"name": more, "skip": 1}])
    assert [row.id for row in load_data(parts).examples] == ["more-0", "more-1"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "more.jsonl").write_text('{"text": "Five six."}\n')
    other = f"{tmp_path}/other/more.jsonl"
    beside = [other, {"name": more, "limit": 1}, {"name": more, "skip": 1}]
    found = [row.id for row in load_data(DataSpec.model_validate(beside)).examples]
    assert found == ["other/more-0", f"{tmp_path.name}/more-0", f"{tmp_path.name}/more-1"]
    with pytest.raises(UserError, match=r"'more-0' is in .* more than once"):
        load_data(DataSpec.model_validate([more, more]))


def test_rows_from_python() -> None:
    """Whatever yields rows; what holds several data sets, or only one row, is refused in words."""
    expected = (Example("rows-0", ROW["question"], ROW["answer"], keywords=("Tarnow", "T.")),)
    row = {**ROW, "keywords": ["Tarnow", "T."]}
    data = datasets.Dataset.from_list([row])

    def generator() -> Iterator[dict[str, Any]]:
        yield row

    for rows in (
        [row],
        (row,),
        generator(),
        data,
        data.with_format("numpy"),
        data.to_iterable_dataset(),
        datasets.DatasetDict({"train": data}),
        pandas.DataFrame([row]),
        data.data.table,
        [{**row, "keywords": ("Tarnow", "T.")}],
        [{**row, "keywords": np.array(["Tarnow", "T."])}],
    ):
        assert examples_from_rows(rows, "rows") == expected, type(rows)
    for wrong, message in (
        (datasets.DatasetDict({"a": data, "b": data}), r"several splits \(a, b\)"),
        (row, "put it into a list"),
        ("rows.jsonl", "expected rows, found str"),
        (5, "expected rows, found int"),
        (None, "expected rows, found NoneType"),
        (["text"], r"rows\[0\]: expected a dict .* found str"),
        ([], "no rows"),
        ([{1: "a"}], "column names must be text"),
        ([{"question": "Who?", "answer": b"I."}], "found bytes"),
    ):
        with pytest.raises(UserError, match=message):
            examples_from_rows(wrong, "rows")
