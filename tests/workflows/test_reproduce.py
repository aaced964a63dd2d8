"""Reproductions: strengths are chosen on rows of their own, and a second call finds what the first one did."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tomli_w

from expunge.core.catalog import REPRODUCTIONS, names
from expunge.core.errors import UserError
from expunge.core.records import Score, read_record
from expunge.core.toml import read_toml
from expunge.core.validation import check
from expunge.data.load import load_examples
from expunge.localize.layers import Layers
from expunge.reports.claims import Claim, Judged
from expunge.reports.reproduction import GridPoint, PartialRecord, Reported, Section, choose, table
from expunge.train.teach import Teach
from expunge.workflows.reproduce import TABLE, load_reproduction, reproduce


def _point(strength: float, kept: float, leak: float) -> GridPoint:
    return GridPoint(key="train.lr", strength=strength, kept=kept, utility=kept, leak=leak, seconds=1.0)


def test_the_strength_that_forgets_most_among_those_that_keep_enough() -> None:
    points = [_point(1, 0.99, 0.8), _point(2, 0.95, 0.4), _point(3, 0.93, 0.5), _point(4, 0.5, 0.0)]
    assert choose(points, keep=0.9).strength == 2
    assert choose(points, keep=0.98).strength == 1
    assert choose(points, keep=1.0).strength == 1, "none keeps enough: the one that keeps most"


def test_at_equal_forgetting_the_strength_that_keeps_most() -> None:
    points = [_point(1, 0.99, 0.8), _point(2, 0.95, 0.4), _point(3, 0.96, 0.45), _point(4, 0.5, 0.0)]
    assert choose(points, keep=0.9, target=0.5).strength == 3
    assert choose(points, keep=0.9, target=0.42).strength == 2
    assert choose(points[:3], keep=0.9, target=0.1).strength == 2, "none forgets as much: the one that forgets most"


def test_a_cell_is_the_mean_over_seeds_with_the_outer_ends_of_the_intervals() -> None:
    scores = Score(value=0.2, low=0.1, high=0.3), Score(value=0.4, low=0.3, high=0.6)
    records = [
        PartialRecord({"forget": {"leak": score}}, {}, seconds={"train": number})
        for score, number in zip(scores, (1, 3), strict=True)
    ]
    points = {"npo": [_point(1e-5, 1.0, 0.5)]}
    columns = {"leak": "after.forget.leak", "training": "seconds.train", "none": "after.general.leak"}
    claim = Claim(says="It forgets", of="leak", method="npo", below=0.5)
    section = Section(
        title="facts",
        reported=[Reported(method="npo", strength="train.lr 1e-05", records=records)],
        points=points,
        chosen={"npo": points["npo"][0]},
        judged=[Judged(claim, "holds", "0.30 against 0.5")],
    )
    text = table("Title", "expunge reproduce x", columns, [section])
    assert "| npo | train.lr 1e-05 | 0.30 [0.10, 0.60] | 2.00 [1.00, 3.00] | absent |" in text
    assert "### facts\n" in text
    assert "- It forgets: **holds** (0.30 against 0.5)" in text
    assert "| npo | train.lr 1e-05 | 1.00 | 1.00 | 0.500 | 1 | yes |" in text


@pytest.mark.parametrize("name", names(REPRODUCTIONS))
def test_shipped_reproductions_are_whole(name: str) -> None:
    """Loading one checks every run in it; rows to choose on and rows to report are other rows."""
    plan = load_reproduction(name)
    first = next(iter(plan.methods))
    strength = plan.grid_of(first).values[0]
    for subject in plan.parts().values():
        tuned, reported = (
            plan.run_of(subject, first, 0, Path("m"), strength, tune=tune).data.forget for tune in (True, False)
        )
        rows = [{row.question for row in load_examples(data)} for data in (tuned, reported)]
        assert not rows[0] & rows[1]
    assert plan.tune_seed not in plan.seeds


def test_shipped_targets_are_taught_once() -> None:
    """Whatever teaches invented authors teaches the same, so that one model under `taught/` serves every table."""
    taught = [
        check(Teach, subject.teach, "teach")
        for name in names(REPRODUCTIONS)
        for subject in load_reproduction(name).parts().values()
        if subject.teach
    ]
    assert len(taught) == 8
    assert all(one == taught[0] for one in taught)


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
            "npo": {
                "recipe": "npo",
                "grid": {"key": "forget.beta", "values": [0.5]},
                "tune": {"evaluate": {"max_rows": 2}},
                "reported": {"evaluate": {"max_rows": 3}},
            },
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
    rows = [record.before["forget"]["keyword_recall"].n for record in (tuned, reported)]
    assert rows == [2, 3], "a method's own settings of either kind of run"
    text = path.read_text()
    assert "| method | strength | leak |" in text
    assert "| retrained |" in text
    assert len(list((tmp_path / "taught").iterdir())) == 2, "the target and the reference, for other tables to find"
    dates = {folder: folder.stat().st_mtime_ns for folder in out.glob("*/*/record.json")}
    path.unlink()
    reproduce(load_reproduction(str(plan)), out)
    assert (out / TABLE).read_text() == text
    assert {folder: folder.stat().st_mtime_ns for folder in out.glob("*/*/record.json")} == dates


@pytest.fixture
def steering(plan: Path, tiny_folder: Path, tmp_path: Path) -> Path:
    """Two subjects, one of them untaught, whose whole curve is reported, and a claim of every form."""
    tables = read_toml(plan)
    curve = {"recipe": "rmu", "choose": False, "localize": {"top": 1}, "grid": {"key": "forget.scale"}}
    curve["grid"] |= {"values": [0.5, 32.0]}
    claims = [
        {"of": "cosine", "method": "length", "along": "rises"},
        {"of": "left", "method": "length", "below": 5.0},
        {"of": "left", "method": "length", "above": 5.0, "share": 1.0},
        {"of": "left", "method": "length", "below": 5.0, "share": 1.0, "where": {"of": "ratio", "above": 1.0}},
        {"of": "left", "method": "npo", "below": "length"},
    ]
    tables |= {
        "seeds": [0, 1],
        "utility": "left",
        "target": 1.0,
        "columns": {
            "left": {"kept": ["forget.probability"]},
            "cosine": "steps.-2:.values.forget_cosine_to_direction",
            "ratio": {"over": ["steps.0.values.coefficient", "steps.0.values.forget_norm"]},
            "KRD": {"removed": "forget.keyword_recall"},
        },
        "methods": {"length": curve, "npo": {"recipe": "npo", "grid": {"key": "train.lr", "values": [1e-3]}}},
        "subjects": {"known": {"run": {"model": {"name": str(tiny_folder)}}}, "taught": {"teach": tables.pop("teach")}},
        "claims": [{"says": f"Claim {place}", **claim} for place, claim in enumerate(claims)],
    }
    del tables["retrained"]
    path = tmp_path / "steering.toml"
    path.write_text(tomli_w.dumps(tables))
    return path


def test_a_curve_is_reported_whole_and_claims_are_judged_for_each_subject(
    steering: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    select = Layers.select

    def counted(self: Layers, model: Any, splits: Any, seed: int) -> Any:
        seen.append(seed)
        return select(self, model, splits, seed)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Layers, "select", counted)
    text = reproduce(load_reproduction(str(steering)), tmp_path / "out").read_text()
    assert seen == [0, 1] * 2, "both lengths of a seed train the same blocks, which are asked for once"
    curve = {f"length-{scale}-{seed}" for scale in ("0.5", "32") for seed in (0, 1)}
    for subject in ("known", "taught"):
        folder = tmp_path / "out" / subject
        assert {one.name for one in (folder / "tune").iterdir()} == {"npo-0.001"}
        assert {one.name for one in (folder / "report").iterdir()} == {*curve, "npo-0", "npo-1"}
    known, _, taught = text.partition("### known")[2].partition("### taught")
    for part in (known, taught):
        assert "| untouched |  | absent | 1.00 | absent |" in part
        assert part.count("| length | forget.scale") == 2
        assert [line[:9] for line in part.splitlines() if line.startswith("- ")] == [f"- Claim {n}" for n in range(5)]
        assert "Claim 0: **holds**" in part, "two seeds whose cosines rise in the same order"
        assert "Claim 2: **does not hold**" in part
        assert "clearly at 1 of 1 strengths" in part.partition("Claim 3")[2].splitlines()[0], "0.5 lies below the norm"
    assert len(list((tmp_path / "taught").iterdir())) == 1


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        ({"of": "leek", "method": "npo", "below": 0.5}, "claims.0: no column 'leek'; did you mean leak"),
        ({"of": "leak", "method": "npoo", "below": 0.5}, "no method 'npoo'; did you mean npo"),
        ({"of": "leak", "method": "npo", "below": "grad"}, "claims.0: no method 'grad'"),
        ({"of": "leak", "method": "npo"}, "one of above, below and along"),
        ({"of": "leak", "method": "npo", "above": 0.1, "along": "falls"}, "one of above, below and along"),
    ],
)
def test_claims_about_what_is_not_there_are_refused(
    plan: Path, tmp_path: Path, claim: dict[str, Any], message: str
) -> None:
    changed = tmp_path / "changed.toml"
    changed.write_text(tomli_w.dumps({**read_toml(plan), "claims": [{"says": "It forgets", **claim}]}))
    with pytest.raises(UserError, match=message):
        load_reproduction(str(changed))


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
    changed = tmp_path / "changed.toml"
    changed.write_text(tomli_w.dumps({**read_toml(plan), **change}))
    with pytest.raises(UserError, match=message):
        load_reproduction(str(changed))
    with pytest.raises(UserError, match="did you mean beliefs"):
        load_reproduction("belief")
