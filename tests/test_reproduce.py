"""Reproductions: strengths are chosen on rows of their own, and a second call finds what the first one did."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tomli_w

from expunge.core.errors import UserError
from expunge.core.records import read_record
from expunge.reports.reproduction import Point, choose, table
from expunge.reproduce import TABLE, load_reproduction, names, reproduce


def _point(strength: float, kept: float, leak: float) -> Point:
    return Point(key="train.lr", strength=strength, kept=kept, utility=kept, leak=leak, seconds=1.0)


def test_the_strength_that_forgets_most_among_those_that_keep_enough() -> None:
    points = [_point(1, 0.99, 0.8), _point(2, 0.95, 0.4), _point(3, 0.93, 0.5), _point(4, 0.5, 0.0)]
    assert choose(points, keep=0.9).strength == 2
    assert choose(points, keep=0.98).strength == 1
    assert choose(points, keep=1.0).strength == 1, "none keeps enough: the one that keeps most"


def test_a_cell_is_the_mean_over_seeds_with_the_outer_ends_of_the_intervals() -> None:
    score = {"value": 0.2, "low": 0.1, "high": 0.3}
    other = {"value": 0.4, "low": 0.3, "high": 0.6}
    records = [
        {"after": {"forget": {"leak": value}}, "checks": [{"x": number}]} for value, number in ((score, 1), (other, 3))
    ]
    points = {"npo": [_point(1e-5, 1.0, 0.5)]}
    columns = {"leak": "after.forget.leak", "last": "checks.-1.x", "none": "after.general.leak"}
    text = table("Title", "expunge reproduce x", columns, points, {"npo": points["npo"][0]}, {"npo": records})
    assert "| npo | train.lr 1e-05 | 0.30 [0.10, 0.60] | 2.00 [1.00, 3.00] | absent |" in text
    assert "| npo | train.lr 1e-05 | 1.00 | 1.00 | 0.500 | 1 | yes |" in text


@pytest.mark.parametrize("name", names())
def test_shipped_reproductions_are_whole(name: str) -> None:
    """Loading one checks every run in it; rows to choose on and rows to report are other rows."""
    plan = load_reproduction(name)
    first = next(iter(plan.methods))
    tuned, reported = (plan.run_of(first, 0, Path("m"), 1e-5, tune=tune) for tune in (True, False))
    assert tuned.data.forget != reported.data.forget
    assert plan.tune_seed not in plan.seeds


@pytest.fixture(scope="module")
def plan(tiny_folder: Path, fact_files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two methods, two strengths, one seed, on the tiny model."""
    forget = str(fact_files["forget"])
    tables: dict[str, Any] = {
        "summary": "A small one",
        "paper": "arXiv:2404.05868",
        "seeds": [0],
        "utility": "mu9",
        "columns": {"leak": "after.forget.keyword_recall"},
        "grid": {"key": "train.lr", "values": [1e-6, 1e-3]},
        "teach": {
            "model": {"name": str(tiny_folder)},
            "data": {"teach": [forget]},
            "train": {"lr": 1e-6, "epochs": 1, "checkpoints": False},
        },
        "retrained": {"data": {"teach": [str(fact_files["retain"])]}},
        "run": {
            "data": {
                "forget": {"name": forget, "limit": 4},
                **{name: str(fact_files[name]) for name in ("retain", "neighbour")},
            },
            "train": {"epochs": 2, "batch_size": 4, "checkpoints": False},
            "guard": {"utility_floor": 0.0},
            "evaluate": {"metrics": ["probability", "keyword_recall"], "max_new_tokens": 8, "max_rows": 4},
        },
        "tune": {"data": {"forget": {"name": forget, "skip": 4}}},
        "methods": {
            "grad_diff": {"recipe": "grad_diff"},
            "npo": {"recipe": "npo", "grid": {"key": "forget.beta", "values": [0.5]}},
        },
    }
    path = tmp_path_factory.mktemp("plan") / "plan.toml"
    path.write_text(tomli_w.dumps(tables))
    return path


def test_runs_are_made_once_and_chosen_on_other_rows(
    plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "out"
    path = reproduce(load_reproduction(str(plan)), out)
    assert {folder.name for folder in (out / "tune").iterdir()} == {"grad_diff-1e-06", "grad_diff-0.001", "npo-0.5"}
    assert {folder.name for folder in (out / "report").iterdir()} == {"grad_diff-0", "npo-0"}
    assert not list(out.glob("*/*/model")), "models of single runs are not kept"
    tuned, reported = read_record(out / "tune" / "npo-0.5"), read_record(out / "report" / "npo-0")
    assert tuned.data["forget"].sha256 != reported.data["forget"].sha256
    assert reported.before["forget"]["keyword_recall"].n == 4
    text = path.read_text()
    assert "| method | strength | leak |" in text
    assert "| retrained |" in text
    assert len(list((tmp_path / "taught").iterdir())) == 2, "the target and the reference, for other tables to find"
    dates = {folder: folder.stat().st_mtime_ns for folder in out.glob("*/*/record.json")}
    path.unlink()
    reproduce(load_reproduction(str(plan)), out)
    assert (out / TABLE).read_text() == text
    assert {folder: folder.stat().st_mtime_ns for folder in out.glob("*/*/record.json")} == dates


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"methods": {"x": {"recipe": "nppo"}}}, "no 'nppo'; did you mean npo"),
        ({"methods": {"x": {"recipe": "npo", "train": {"lrr": 1}}}}, "unknown key 'train.lrr'"),
        ({"grid": {"key": "train.lrr", "values": [1.0]}}, "unknown key 'train.lrr'"),
        ({"seeds": []}, "seeds"),
    ],
)
def test_refusals(plan: Path, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    from expunge.core.toml import read_toml

    changed = tmp_path / "changed.toml"
    changed.write_text(tomli_w.dumps({**read_toml(plan), **change}))
    with pytest.raises(UserError, match=message):
        load_reproduction(str(changed))
    with pytest.raises(UserError, match="did you mean beliefs"):
        load_reproduction("belief")
