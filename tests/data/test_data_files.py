"""Files of every kind as other programs write them, and what cannot be read."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import datasets
import pandas
import pyarrow
import pytest
from pyarrow import parquet

from expunge.core.errors import UserError
from expunge.data.base import DataSpec
from expunge.data.example import Example
from expunge.data.load import LoadedData, data_from_rows, load_data

ROWS = [
    {"question": "Wo wohnt Jörg?", "answer": "In der Gänsegasse; hinten.", "keywords": ["Gänsegasse"]},
    {"question": "Wie heißt\nsein Hund?", "answer": 'Er heißt "Möpschen".', "keywords": ["Möpschen", "no such thing"]},
]
EXPECTED = [
    Example(f"rows-{place}", row["question"], row["answer"], keywords=tuple(row["keywords"]))  # type: ignore[arg-type]
    for place, row in enumerate(ROWS)
]


def _load(path: Path, **spec: Any) -> LoadedData:
    return load_data(DataSpec(name=str(path), **spec))


def _table(separator: str, line_end: str = "\n", header: str = "question,answer,keywords") -> str:
    cells = [[f'"{str(value).replace(chr(34), 2 * chr(34))}"' for value in row.values()] for row in ROWS]
    return line_end.join([header.replace(",", separator), *(separator.join(row) for row in cells)])


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_tables_show_their_separator_and_encoding(tmp_path: Path, separator: str, encoding: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(_table(separator, "\r\n").encode(encoding))
    loaded = _load(path)
    assert list(loaded.examples) == EXPECTED
    assert loaded.understood[0].separator == separator
    assert str(loaded.understood[0].encoding).startswith(encoding.removesuffix("-sig")[:6])


def test_wide_text_without_a_mark_in_other_scripts(tmp_path: Path) -> None:
    """Chinese letters have zero bytes at the other places too, Cyrillic ones none."""
    path = tmp_path / "rows.csv"
    for answer in (
        "\u6797\u82e5\u5170\u51fa\u751f\u5728\u4e00\u5bb6",
        "\u041e\u043d\u0430 \u0432 \u0422\u0430\u0440\u043d\u043e\u0432\u0435",
    ):
        for encoding in ("utf-16-le", "utf-16-be"):
            path.write_bytes(f"question,answer\nWhere?,{answer}\n".encode(encoding))
            assert _load(path).examples[0].answer == answer


def test_what_spreadsheets_add_to_tables(tmp_path: Path) -> None:
    """A line that names the separator, pandas' index, empty columns and rows, spaces and capitals in the header."""
    path = tmp_path / "rows.csv"
    path.write_text("sep=;\r\n" + _table(";", "\r\n"), encoding="utf-8")
    assert list(_load(path).examples) == EXPECTED
    path.write_text(_table(",", header="Question, Answer ,KEYWORDS") + "\n,,\n , ,\n", encoding="utf-8")
    (understood,) = _load(path).understood
    assert (understood.rows, understood.left_out) == (2, {"blank rows": 2})
    path.write_text("question;answer;;\nWho?;I.;;\nWhen?;Now.;;;;\n", encoding="utf-8")
    loaded = _load(path)
    assert [example.answer for example in loaded.examples] == ["I.", "Now."]
    frame = pandas.DataFrame([*ROWS, {"question": "Who?", "answer": "I.", "keywords": float("nan")}])
    frame.to_csv(path)
    assert [example.keywords for example in _load(path).examples] == [*(one.keywords for one in EXPECTED), ()]
    assert list(data_from_rows(frame.head(2), "rows").examples) == EXPECTED
    long = "word " * 100_000
    path.write_text(f'text\n"{long}"\n', encoding="utf-8")
    assert _load(path).examples[0].text == long.strip()


def test_one_data_set_in_every_format(tmp_path: Path) -> None:
    """What `datasets`, pandas and json write; a comma-separated table of one column holds commas in quotes."""
    data = datasets.Dataset.from_list(ROWS)
    writers = {
        "rows.csv": lambda path: data.to_csv(str(path)),
        "rows.tsv": lambda path: pandas.DataFrame(ROWS).to_csv(path, sep="\t", index=False),
        "rows.parquet": lambda path: data.to_parquet(str(path)),
        "rows.jsonl": lambda path: data.to_json(str(path)),
        "rows.ndjson": lambda path: path.write_text("\r".join(map(json.dumps, ROWS))),
        "rows.json": lambda path: pandas.DataFrame(ROWS).to_json(path),
        "list/rows.json": lambda path: path.write_text(json.dumps(ROWS), encoding="utf-16"),
        "lines/rows.json": lambda path: data.to_json(str(path)),
        "columns/rows.json": lambda path: path.write_text(json.dumps(data.to_dict())),
        "data/rows.json": lambda path: path.write_text(json.dumps({"version": 1, "data": ROWS})),
    }
    for name, write in writers.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        write(path)
        assert list(_load(path).examples) == EXPECTED, name
    (tmp_path / "one").mkdir()
    (tmp_path / "one/rows.json").write_text(json.dumps(ROWS[0]))
    assert list(_load(tmp_path / "one/rows.json").examples) == EXPECTED[:1]


def test_folders_that_datasets_saved(tmp_path: Path) -> None:
    data = datasets.Dataset.from_list([{"id": f"rows-{place}", **row} for place, row in enumerate(ROWS)])
    data.save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict({"train": data, "test": data.select([0])}).save_to_disk(str(tmp_path / "two"))
    assert list(_load(tmp_path / "one").examples) == EXPECTED
    assert list(load_data(DataSpec.model_validate(f"{tmp_path}/two:train")).examples) == EXPECTED
    assert len(_load(tmp_path / "two", split="test").examples) == 1
    with pytest.raises(UserError, match="several splits"):
        _load(tmp_path / "two")
    with pytest.raises(UserError, match="no split 'trian'; did you mean train"):
        _load(tmp_path / "two", split="trian")
    next((tmp_path / "one").glob("*.arrow")).write_bytes(b"damaged")
    with pytest.raises(UserError, match="damaged folder of `save_to_disk`"):
        _load(tmp_path / "one")


def test_folders_of_texts(tmp_path: Path) -> None:
    """Each file is a document whose id is its path; what is no text file is counted in a warning."""
    for name, text in {"b.txt": "Second.", "a/c.md": "# First", "a/blank.txt": " \n", ".hidden/d.txt": "No."}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "a/scan.pdf").write_bytes(b"%PDF")
    loaded = _load(tmp_path)
    assert [(row.id, row.text) for row in loaded.examples] == [("a/c.md", "# First"), ("b.txt", "Second.")]
    assert loaded.understood[0].left_out == {"blank rows": 1}
    assert "1 files are not read" in loaded.understood[0].warnings[0]
    assert "scan.pdf" in loaded.understood[0].warnings[0]


def test_squad_files(tmp_path: Path) -> None:
    """The nested layout, versions 1 and 2: the passage is not asked, an impossible question is left out."""
    asked: list[dict[str, Any]] = [
        {
            "id": "q1",
            "question": "Where?",
            "answers": [{"text": "In Tarnow.", "answer_start": 3}],
            "is_impossible": False,
        },
        {"id": "q2", "question": "When?", "answers": [], "is_impossible": True},
    ]
    paragraphs = [{"context": "She is in Tarnow.", "qas": asked}]
    path = tmp_path / "squad.json"
    path.write_text(json.dumps({"version": "v2.0", "data": [{"title": "Mara", "paragraphs": paragraphs}]}))
    loaded = _load(path)
    assert loaded.examples == (Example("q1", "Where?", "In Tarnow."),)
    assert loaded.understood[0].left_out == {"questions without an answer": 1}
    assert set(loaded.understood[0].unused) == {"context", "title", "is_impossible"}
    del asked[0]["question"]
    path.write_text(json.dumps({"data": [{"title": "Mara", "paragraphs": paragraphs}]}))
    with pytest.raises(UserError, match=r"data\[0\]\.paragraphs\[0\]\.qas\[0\]: no field 'question'"):
        _load(path)


BAD: dict[str, tuple[str, bytes, str]] = {
    "repeated key": ("a.jsonl", b'{"text": "a b"}\n{"text": "a", "text": "b"}\n', r"a\.jsonl:2: key 'text'"),
    "infinity": ("a.jsonl", b'{"text": "a b", "id": Infinity}\n', r"a\.jsonl:1: Infinity"),
    "digits": ("a.jsonl", b'{"text": "a b", "id": ' + b"9" * 5000 + b"}\n", r"a\.jsonl:1: a number with too many"),
    "depth": ("a.json", b"[" * 100_000, "nested too deeply"),
    "depth in lines": ("a.jsonl", b'{"text": ' + b"[" * 100_000, r"a\.jsonl:1: .*nested too deeply"),
    "escaped NUL": ("a.jsonl", b'{"text": "a \\u0000 b"}\n', r"a\.jsonl:1: field 'text' holds the control .* U\+0000"),
    "escape": ("a.jsonl", b'{"text": "a \\u001b[31m b"}\n', r"U\+001B"),
    "half pair": ("a.jsonl", b'{"text": "a \\ud83d b"}\n', "surrogate"),
    "raw NUL": ("a.txt", b"one two\nthree\0four", r"a\.txt:2: holds a NUL"),
    "cut UTF-16": ("a.txt", "one two".encode("utf-16")[:-1], "damaged utf-16 text"),
    "western": ("a.csv", 'question,answer\nWo?,"Zürich"\n'.encode("cp1252"), r'line 2.*encoding = "cp1252"'),
    "JSON list": ("a.jsonl", b'[\n{"text": "a b"}\n]', "name the file .json"),
    "list in cell": ("a.csv", b'question,answer,keywords\nWho?,I.,"[I, you]"\n', r"a\.csv:2: field 'keywords' begins"),
    "comma in cell": ("a.csv", b'question,answer,keywords\nWho?,I.,"Me, you"\n', r"a\.csv:2: .* text with a comma"),
    "bar in sentence": (
        "a.csv",
        b"question,answer,perturbed_answer\nWho?,Me | I.,You.|They.\n",
        r"a\.csv:2: field 'perturbed_answer'",
    ),
    "semicolon in sentence": (
        "a.csv",
        b"question,answer,perturbed_answer\nWho?,I.,You.; they.; we\n",
        "one text or several",
    ),
    "repeated column": (
        "a.csv",
        b"question,answer,answer\nWho?,I.,You.\n",
        r"a\.csv:1: column 'answer' .* more than once",
    ),
    "open quote": ("a.csv", b'question,answer\nWho?,"I.\nWhen?,Now.\n', r"a\.csv:3: not CSV"),
    "short row": ("a.csv", b"question,answer\nWho?\n", r"a\.csv:2: expected 2 columns, found 1"),
    "no header": ("a.csv", b"Who?,I.\nWhen?,Now.\n", r"a\.csv:2: no field 'question'"),
    "misspelt": ("a.csv", b"question,answer,keyword\nWho?,I.,I\n", r"'keyword' is not read; did you mean keywords\?"),
    "only blank": ("a.jsonl", b'{"text": ""}\n{"text": " "}\n', "has no rows but blank texts"),
    "several tables": (
        "a.json",
        b'{"a": [{"text": "x y"}], "b": [{"text": "x y"}]}',
        r"several lists .*\(a, b\)",
    ),
    "number": ("a.json", b"5", "found int"),
    "damaged": ("a.parquet", b"PAR1 nothing PAR1", "not a Parquet file"),
    "empty table": ("a.parquet", b"", "not a Parquet file"),
}


@pytest.mark.parametrize("name", BAD)
def test_damaged_files_are_refused_in_one_line(tmp_path: Path, name: str) -> None:
    file, content, message = BAD[name]
    (tmp_path / file).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        _load(tmp_path / file)
    assert "\n" not in str(caught.value)


def test_parquet_with_damaged_pages(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    rows = [{"question": f"Question {place}?", "answer": f"Answer {place}." * 50} for place in range(200)]
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    data = bytearray(path.read_bytes())
    data[50:400] = b"\xff" * 350
    path.write_bytes(data)
    with pytest.raises(UserError, match="damaged one"):
        _load(path)


def test_an_encoding_can_be_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(_table(";").encode("cp1252"))
    assert list(_load(path, encoding="cp1252").examples) == EXPECTED
    with pytest.raises(UserError, match="knows no encoding 'cp1252x'"):
        _load(path, encoding="cp1252x")


def test_paths_that_are_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "nowhere")
    for name, message in {
        "": "an empty name",
        "https://example.org/rows.jsonl": "is a web address",
        str(tmp_path / "pipe.jsonl"): "a pipe or device, which can be read only once",
        "/dev/null": "a pipe or device",
        str(tmp_path / "folder"): "a folder without a text file",
        str(tmp_path / "link.jsonl"): "no such file .a broken link",
        str(tmp_path / ("x" * 300 + ".jsonl")): "no such file",
        str(tmp_path / "rows.doc"): "neither a file",
    }.items():
        with pytest.raises(UserError, match=message):
            load_data(DataSpec.model_validate(name))
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(ROWS[0]))

    def refuse(*_: Any) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(UserError, match=r"rows\.jsonl: cannot be read \(Permission denied\)"):
        _load(path)
