"""One option over a grid, on the tiny model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from expunge.core.errors import UserError
from expunge.sweep import RECORD, Sweep, SweepRecord, execute_sweep, load_sweep, names


@pytest.fixture
def given(tiny_folder: Path, fact_files: dict[str, Path]) -> dict[str, Any]:
    """Model, data and a short run."""
    return {
        "model": {"name": str(tiny_folder)},
        "data": {name: str(fact_files[name]) for name in ("forget", "retain", "neighbour")},
        "train": {"epochs": 2},
        "evaluate": {"max_new_tokens": 4, "max_rows": 4},
    }


@pytest.mark.parametrize("name", names())
def test_shipped_sweeps_are_whole(name: str) -> None:
    plan = load_sweep(name)
    assert plan.columns
    assert plan.lines


def test_targets_beyond_the_norm_move_states_further(given: dict[str, Any], tmp_path: Path) -> None:
    """The cosine to the direction rises with the target's length (arXiv:2408.06223, section 3.2)."""
    plan = load_sweep("coefficient").model_copy(update={"values": (0.5, 2.0, 8.0)})
    record = execute_sweep(plan, tmp_path / "out", given=given)
    assert SweepRecord.model_validate_json((tmp_path / "out" / RECORD).read_bytes()) == record
    cosines = [point.shown["cosine to the direction"] for point in record.lines["rmu"]]
    assert cosines == sorted(cosines)  # type: ignore[type-var]
    assert cosines[0] != cosines[-1]
    dates = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*/record.json")}
    assert len(dates) == 3
    assert execute_sweep(plan, tmp_path / "out", given=given) == record
    assert {path: path.stat().st_mtime_ns for path in dates} == dates, "a second call finds the runs"
    assert not list((tmp_path / "out").glob("*/model"))


def test_layers_are_those_of_the_model(given: dict[str, Any], tmp_path: Path) -> None:
    """Three blocks: the sweep steers the last alone; one length for all layers there is that of a lower one."""
    plan = load_sweep("layers")
    record = execute_sweep(plan, tmp_path / "out", given=given)
    assert {line: [point.value for point in points] for line, points in record.lines.items()} == {
        "rmu": [2],
        "adaptive_rmu": [2],
    }
    fixed, adaptive = (record.lines[line][0].shown["target length"] for line in ("rmu", "adaptive_rmu"))
    assert fixed != adaptive


def test_refusals(given: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean coefficient"):
        load_sweep("coeficient")
    plan = load_sweep("coefficient")
    wrong = Sweep.model_validate({**plan.model_dump(), "key": "forget.scal"})
    with pytest.raises(UserError, match=r"unknown key 'forget\.scal'"):
        execute_sweep(wrong, tmp_path / "out", given=given)
    assert not (tmp_path / "out").exists()
