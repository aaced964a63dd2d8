"""`expunge meta-eval`: a table, a record, one line for a mistake."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tomli_w


@pytest.fixture
def pool(tiny_folder: Path, retrained_folder: Path, fact_files: dict[str, Path], tmp_path: Path) -> Path:
    file = tmp_path / "pool.toml"
    models = [{"path": str(tiny_folder), "knows": True}, {"path": str(retrained_folder), "knows": False}]
    tables: dict[str, Any] = {"data": {"forget": str(fact_files["forget"])}, "models": models}
    tables["evaluate"] = {"metrics": ["probability"], "set_metrics": []}
    file.write_text(tomli_w.dumps(tables), encoding="utf-8")
    return file


def test_prints_a_table_and_writes_the_record(expunge: Any, pool: Path, tmp_path: Path) -> None:
    outcome = expunge("meta-eval", pool, "--quiet", "--out", tmp_path / "found")
    assert outcome.code == 0, outcome.err
    assert "No metric deserves trust here." in outcome.out
    assert "probability" in outcome.out
    written = json.loads((tmp_path / "found" / "meta.json").read_text(encoding="utf-8"))
    assert written["provenance"]["command"].startswith("expunge meta-eval ")
    again = expunge("meta-eval", pool, "--quiet", "--out", tmp_path / "found")
    assert (again.code, again.out) == (2, "")
    assert "is there already" in again.err


def test_as_json(expunge: Any, pool: Path) -> None:
    """Standard output holds the record alone; how the rows were read is on standard error."""
    outcome = expunge("meta-eval", pool, "--json")
    assert "questions" in outcome.err
    found = outcome.json()
    assert found["metrics"][0]["faithfulness"]["value"] == 1.0


def test_a_mistake_is_one_line(expunge: Any, tmp_path: Path) -> None:
    outcome = expunge("meta-eval", tmp_path / "none.toml", "--out", tmp_path / "found")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == f"expunge: {tmp_path / 'none.toml'}: no such file\n"
    assert not (tmp_path / "found").exists()
