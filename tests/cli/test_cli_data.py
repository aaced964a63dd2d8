"""`expunge data`, and what commands say of data before they work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from expunge.cli._console import DrawnProgress
from expunge.core.records import read_record
from expunge.data.base import DataSpec
from expunge.data.load import load_data
from expunge.data.summary import say_all

CSV = "Question;Answer;note\nWhere does Mara [b]live[/b]?;In Tarnow.;a\nWho?;She.;b\n"


def test_a_look_at_a_file(expunge: Any, tmp_path: Path) -> None:
    path = tmp_path / "facts.csv"
    path.write_text(CSV, encoding="utf-16")
    assert expunge("data", path, "--json").json() == {
        "source": str(path),
        "rows": 2,
        "kinds": {"questions": 2},
        "first": {"id": "facts-0", "question": "Where does Mara [b]live[/b]?", "answer": "In Tarnow."},
        "columns": {"question": "Question", "answer": "Answer"},
        "unused": ["note"],
        "left_out": {},
        "layouts": [],
        "encoding": "utf-16",
        "separator": ";",
        "warnings": [],
    }
    shown = expunge("data", path)
    assert (shown.code, "Where does Mara [b]live[/b]?" in shown.out) == (0, True)
    options = ["--set", "fields.subject=note", "--set", "limit=1", "--json"]
    assert expunge("data", path, *options).json()["first"]["subject"] == "a"
    inline = f'{{name = "{path}", ignore = ["note"], skip = 1}}'
    looked = expunge("data", inline, "--json").json()
    assert (looked["rows"], looked["unused"], looked["first"]["question"]) == (1, [], "Who?")
    assert expunge("data", "people:forget", "--json").json()["rows"] == 30
    for arguments, message in (
        ([tmp_path / "none.csv"], "no such file"),
        ([path, "--set", "feilds.subject=note"], "unknown key 'feilds'; did you mean fields?"),
        ([path, "--set", "fields.subjct=note"], "unknown field 'subjct'; did you mean subject"),
    ):
        refused = expunge("data", *arguments)
        assert (refused.code, refused.out, message in refused.err) == (2, "", True)
        assert refused.err.count("\n") == 1
    assert {"people", "tofu"} <= {row["name"] for row in expunge("data", "--json").json()}


def test_text_is_quoted_on_a_terminal_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "facts.csv"
    path.write_text(CSV + "x" * 100 + ";Yes.;c\n", encoding="utf-8")
    loaded = load_data(DataSpec(name=str(path), skip=2))
    drawn = DrawnProgress()
    say_all(drawn, {"forget": loaded.understood})
    log = capsys.readouterr().err.replace("\n", "")
    assert "xxx" not in log
    assert "question (100 characters)" in log
    assert "columns not used: note" in log.replace("  ", " ")
    drawn._console._force_terminal = True
    say_all(drawn, {"forget": loaded.understood})
    shown = capsys.readouterr().err.replace("\n", "")
    assert f'question "{"x" * 60}..."' in shown
    assert "x" * 61 not in shown


def test_runs_and_evaluations_record_what_was_not_read(
    expunge: Any, tiny_folder: Path, fact_files: dict[str, Path], finished: Any
) -> None:
    """The facts have a column of their own, `relation`, that no field is named like."""
    data = read_record(finished.folder).data
    assert {name: one.unused for name, one in data.items()} == {name: ["relation"] for name in fact_files}
    assert "columns not used: relation" in finished.outcome.err.replace("\n", "")
    odd = finished.folder.parent / "odd.jsonl"
    rows = [json.loads(line) for line in fact_files["forget"].read_text(encoding="utf-8").splitlines()[:2]]
    odd.write_text("\n".join(json.dumps({**row, "paraphrase": "x"}) for row in rows), encoding="utf-8")
    options = ["--samples", "0", "--max-new-tokens", "4", "--json", "--set", "evaluate.cache=false"]
    found = expunge("eval", tiny_folder, "--data", f"forget={odd}", *options)
    assert found.json()["data"]["forget"]["unused"] == ["relation", "paraphrase"]
    assert any("'paraphrase' is not used" in warning for warning in found.json()["warnings"])
    assert "warning: column 'paraphrase'" in found.err.replace("\n", " ")
    for row in rows:
        assert row["question"] not in found.err.replace("\n", " ")
    inline = f'forget={{name = "{odd}", ignore = ["relation", "paraphrase"]}}'
    assert expunge("eval", tiny_folder, "--data", inline, *options).json()["data"]["forget"]["unused"] == []
