"""`expunge diagnose squeeze`: a run with the diagnostic on, and what it never shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_cli_refusals import refused

from expunge.config import load_run
from expunge.core.records import read_record
from expunge.train.candidates import CandidateSet, pools

FEW = ("prompts=2", "beams=4", "samples=4", "max_new_tokens=16")


def test_a_run_with_the_diagnostic_on(
    expunge: Any, subject: list[str], quick: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sentence and every check in JSON and record, a section in the page, and no candidate anywhere."""
    candidates: list[str] = []

    def overheard(*arguments: Any) -> list[CandidateSet]:
        found = pools(*arguments)
        candidates.extend(answer.text for pool in found for answer in pool.kept)
        return found

    monkeypatch.setattr("expunge.train.squeeze.pools", overheard)
    few = [part for setting in FEW for part in ("--set", f"diagnose.squeeze.{setting}")]
    only = ["--set", 'evaluate.metrics=["probability"]']
    out = tmp_path / "run"
    printed = expunge("diagnose", "squeeze", *subject, *quick, *few, *only, "--out", out, "--json", "--quiet").json()
    record = read_record(out)
    assert record.squeeze is not None
    assert record.squeeze.prompts + record.squeeze.left_out == 2
    assert [check.step for check in record.squeeze.checks] == [0, 1, 2]
    assert printed["squeeze"]["checks"] == record.model_dump()["squeeze"]["checks"]
    assert printed["squeeze"]["sentence"].endswith(".")
    page = (out / "report.html").read_text(encoding="utf-8")
    assert printed["squeeze"]["sentence"] in page
    secrets = [text for text in candidates if len(text) > 15]
    assert secrets
    files = [path.read_bytes().decode(errors="replace") for path in out.rglob("*") if path.is_file()]
    assert not any(text in shown for text in secrets for shown in (str(printed), *files))

    again = expunge("report", out)
    assert printed["squeeze"]["sentence"].split(";")[0] in " ".join(again.out.split())
    assert load_run(out / "run.toml").diagnose.squeeze is not None


def test_a_plain_run_measures_none_of_it(finished: Any) -> None:
    assert read_record(finished.folder).squeeze is None
    assert "squeeze" not in finished.outcome.json()
    assert "Squeezing" not in (finished.folder / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("setting", "parts"),
    [
        ("diagnose.squeeze.promts=8", ["unknown key 'diagnose.squeeze.promts'", "did you mean prompts?"]),
        ("diagnose.squeeze.beams=1", ["diagnose.squeeze.beams", "1"]),
        ("diagnose.squeeze=5", ["diagnose.squeeze", "5"]),
        ("diagnose.squeeze=false", ["diagnose.squeeze", "false"]),
        ("diagnose.squeze=true", ["unknown key 'diagnose.squeze'", "squeeze"]),
    ],
)
def test_bad_options(expunge: Any, subject: list[str], tmp_path: Path, setting: str, parts: list[str]) -> None:
    refused(expunge("diagnose", "squeeze", *subject, "--set", setting, "--out", tmp_path / "out"), *parts)
    assert not (tmp_path / "out").exists()


def test_true_and_a_table_both_switch_it_on(subject: list[str]) -> None:
    assert load_run(None, {}).diagnose.squeeze is None
    assert load_run(None, {}, ["diagnose.squeeze=true"]).diagnose.squeeze is not None
    table = load_run(None, {"diagnose": {"squeeze": {}}}, ["diagnose.squeeze.prompts=8"]).diagnose.squeeze
    assert table is not None
    assert table.prompts == 8
    assert load_run(None, {"diagnose": {"squeeze": {}}}, ["diagnose.squeeze=false"]).diagnose.squeeze is None
