"""`expunge locate`: the blocks, their curve, and what it leaves on the disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

FAST = ("--set", "localize.draws=2", "--set", "localize.window=1", "--quiet")


@pytest.fixture
def given(tiny_folder: Path, fact_files: dict[str, Path]) -> list[Any]:
    return ["locate", tiny_folder, *(f"--data={name}={fact_files[name]}" for name in ("forget", "retain"))]


def test_prints_a_bar_for_every_block_and_the_chosen_one(expunge: Any, given: list[Any]) -> None:
    outcome = expunge(*given, *FAST)
    assert outcome.code == 0, outcome.err
    assert "causal_tracing chose block " in outcome.out
    lines = [line.split() for line in outcome.out.splitlines() if line.strip()[:1].isdigit()]
    assert [line[0] for line in lines] == ["0", "1", "2"]
    assert sum(line[-1] == "chosen" for line in lines) == 1


def test_writes_the_record_and_a_page_that_asks_for_nothing(expunge: Any, given: list[Any], tmp_path: Path) -> None:
    printed = expunge(*given, *FAST, "--json", "--out", tmp_path / "found").json()
    assert {path.name for path in (tmp_path / "found").iterdir()} == {"locate.json", "locate.html"}
    assert json.loads((tmp_path / "found" / "locate.json").read_text(encoding="utf-8")) == printed
    assert printed["config"]["draws"] == 2
    assert printed["data"]["forget"]["rows"] == 8
    assert len(printed["selection"]["curves"][0]["values"]) == 3
    page = (tmp_path / "found" / "locate.html").read_text(encoding="utf-8")
    assert "causal_tracing chose block" in page
    assert 'data-for="plot-1"' in page
    assert "src=" not in page.split("<style>")[0]
    assert "https://" not in page
    assert expunge(*given, *FAST, "--json", "--out", tmp_path / "one.json").json() == printed
    assert json.loads((tmp_path / "one.json").read_text(encoding="utf-8")) == printed
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["one.json"]


def test_any_localizer_by_name(expunge: Any, given: list[Any]) -> None:
    found = expunge(*given, "--by", "layers", "--set", "localize.layers=[0, 1]", "--json", "--quiet").json()
    assert found["selection"]["evidence"]["layers"] == [0, 1]
    shown = expunge(*given, "--by", "everything", "--quiet")
    assert "everything chose no single blocks" in shown.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--by", "causal_trace"], "localize: no 'causal_trace'; did you mean causal_tracing?"),
        (["--set", "localize.drawz=1"], "unknown key 'localize.drawz'; did you mean draws?"),
        (["--set", "localize.draws=0"], "localize.draws"),
        (["--set", "train.lr=1"], "only options of 'localize'"),
        (["--set", "localize=3"], "table of options"),
        (["--data", "forgot=x.jsonl"], "no split 'forgot'"),
        (["--template", "chatt"], "'chat' or 'plain'"),
        (["--set", "localize.min_probability=1.0"], "no known fact to trace"),
        (["--set", "localize.noise=0"], "lowers none of 8 known facts"),
    ],
)
def test_mistakes_are_told_in_one_line_and_nothing_is_written(
    expunge: Any, given: list[Any], tmp_path: Path, arguments: list[str], message: str
) -> None:
    outcome = expunge(*given, *FAST, *arguments, "--out", tmp_path / "found")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("expunge: ")
    assert outcome.err.count("\n") == 1
    assert message in outcome.err
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_refused_first(expunge: Any, given: list[Any], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "page.html").mkdir()
    for out, message in (("file", "is a file"), ("page.html", "is a directory"), ("file/a.json", "is a file")):
        outcome = expunge(*given, *FAST, "--out", tmp_path / out)
        assert outcome.code == 2
        assert message in outcome.err
