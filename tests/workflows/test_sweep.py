"""One option over a grid, on the tiny model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tomli_w

from expunge.cli.main import main
from expunge.core.catalog import SWEEPS, names
from expunge.core.errors import UserError
from expunge.core.report_section import Diagnosis
from expunge.core.toml import read_toml
from expunge.workflows.sweep import chosen_value, execute_sweep, load_sweep


@pytest.fixture
def given(tiny_folder: Path, fact_files: dict[str, Path]) -> dict[str, Any]:
    """Model, data and a short run."""
    return {
        "model": {"name": str(tiny_folder)},
        "data": {name: str(fact_files[name]) for name in ("forget", "retain", "neighbour")},
        "train": {"epochs": 2},
        "evaluate": {"max_new_tokens": 4, "max_rows": 4},
    }


@pytest.mark.parametrize("name", names(SWEEPS))
def test_shipped_sweeps_are_whole(name: str) -> None:
    plan = load_sweep(name)
    assert plan.columns
    assert plan.lines


def column(found: Diagnosis, heading: str) -> list[float]:
    """One chart's values, all lines after one another."""
    chart = next(chart for chart in found.finding.charts if chart.title == heading)
    return [value for line in chart.series for value in line.y]


@pytest.fixture
def three_lengths(tmp_path: Path) -> Path:
    """The shipped sweep with three values."""
    tables = {**read_toml(SWEEPS / "coefficient.toml"), "values": [0.5, 2.0, 8.0]}
    path = tmp_path / "three.toml"
    path.write_text(tomli_w.dumps(tables))
    return path


def test_targets_beyond_the_norm_move_states_further(
    given: dict[str, Any], three_lengths: Path, tmp_path: Path
) -> None:
    """The cosine to the direction rises with the target's length (arXiv:2408.06223, section 3.2)."""
    found = execute_sweep(str(three_lengths), tmp_path / "out", given=given)
    cosines = column(found, "cosine to the direction")
    assert cosines == sorted(cosines)
    assert cosines[0] != cosines[-1]
    assert [row[1] for row in found.finding.tables[0].rows] == [0.5, 2.0, 8.0]
    dates = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*/record.json")}
    assert len(dates) == 3
    again = execute_sweep(str(three_lengths), tmp_path / "out", given=given)
    assert again.finding == found.finding
    assert {path: path.stat().st_mtime_ns for path in dates} == dates, "a second call finds the runs"
    assert not list((tmp_path / "out").glob("*/model"))


def scored(forget: float, retain: float, neighbour: float | None = 0.8) -> dict[str, Any]:
    """A run's record as far as probabilities go; all were 0.8 before."""
    after = {"forget": forget, "retain": retain, **({} if neighbour is None else {"neighbour": neighbour})}
    stages = {"before": dict.fromkeys(after, 0.8), "after": after}
    return {
        stage: {split: {"probability": {"value": value}} for split, value in some.items()}
        for stage, some in stages.items()
    }


def test_two_stage_tuning_takes_the_budget_and_then_the_strength() -> None:
    """97% of 0.8 is 0.776, a tenth of it 0.08."""
    budget, strength = load_sweep("null_space_budget"), load_sweep("forgetting_strength")
    assert budget.choice
    assert strength.choice
    records = [scored(0.7, 0.8), scored(0.4, 0.78), scored(0.1, 0.79, 0.77), scored(0.0, 0.5)]
    found = chosen_value(budget, budget.choice, [1e-4, 1e-3, 1e-2, 1.0], records)
    assert found.startswith("Take combine.energy = 0.001: the largest at which retain.probability keeps 97%")
    assert "expunge diagnose forgetting_strength --set combine.energy=0.001" in found

    records = [scored(0.24, 0.8, None), scored(0.07, 0.78, None), scored(0.0, 0.78, None), scored(0.0, 0.7, None)]
    found = chosen_value(strength, strength.choice, [20.0, 5.0, 2.0, 1.0], records)
    assert found.startswith("Take forget.beta = 5: the largest")
    assert "Not measured, and so without a bound: neighbour.probability" in found
    found = chosen_value(strength, strength.choice, [20.0, 1.0], [records[0], records[3]])
    assert found.startswith("At no value of forget.beta")
    assert "20 forgets most (forget.probability at 30%)" in found


def test_layers_are_those_of_the_model(given: dict[str, Any], tmp_path: Path) -> None:
    """Three blocks: the sweep steers the last alone; one length for all layers there is that of a lower one."""
    found = execute_sweep("layers", tmp_path / "out", given=given)
    assert [row[:2] for row in found.finding.tables[0].rows] == [["rmu", 2], ["adaptive_rmu", 2]]
    fixed, adaptive = column(found, "target length")
    assert fixed != adaptive


def test_refusals(given: dict[str, Any], three_lengths: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean coefficient"):
        load_sweep("coeficient")
    wrong = three_lengths.read_text().replace("forget.scale", "forget.scal")
    three_lengths.write_text(wrong)
    with pytest.raises(UserError, match=r"unknown key 'forget\.scal'"):
        execute_sweep(str(three_lengths), tmp_path / "out", given=given)
    assert not (tmp_path / "out").exists()


def test_the_command_prints_a_table_and_writes_a_page(
    given: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run.toml"
    run.write_text(tomli_w.dumps({"recipe": "rmu", **given}))
    out = tmp_path / "out"
    monkeypatch.setattr("sys.argv", ["expunge", "diagnose", "layers", str(run), "--out", str(out), "--quiet"])
    main()
    assert "steered layer" in capsys.readouterr().out
    assert "https://" not in (out / "layers.html").read_text().partition("plotly")[0]
    assert Diagnosis.model_validate_json((out / "layers.json").read_bytes()).finding.charts
