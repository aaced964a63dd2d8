"""Runs against runs: rows matched by their ids, seeds taken together, and what may not be compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from typer.testing import CliRunner

from expunge.cli.main import app
from expunge.core.errors import UserError
from expunge.core.records import (
    EVALUATION_FILE,
    ITEMS_FILE,
    RECORD_FILE,
    DataPrint,
    Evaluation,
    GuardOutcome,
    ModelPrint,
    Provenance,
    Record,
    Score,
    SelectionPrint,
)
from expunge.evaluate.compare import compare
from expunge.evaluate.items import read_items

ROWS = 60


def saved(folder: Path, level: float, seed: int = 0, **changes: Any) -> Path:
    """A finished run of 60 forget rows: probability .5 before and this level after, with noise; perplexity 2 always."""
    folder.mkdir()
    noise = np.random.default_rng(seed).normal(0, 0.05, ROWS)
    ids = changes.pop("ids", [f"r{row}" for row in range(ROWS)])
    rows = [
        {"stage": stage, "split": "forget", "id": row, "probability": mean + float(gap), "perplexity": 2.0}
        for stage, mean in (("before", 0.5), ("after", level))
        for row, gap in zip(ids, noise, strict=True)
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / ITEMS_FILE)
    score = {"forget": {"probability": Score(value=level, better="lower")}}
    usual: dict[str, Any] = {
        "recipe": "npo",
        "config": {"recipe": "npo", "seed": seed, "evaluate": {"max_new_tokens": 64}, "level": level},
        "provenance": Provenance(
            command="", created="", expunge="", commit=None, dirty=None, python="", platform="", device="", precision=""
        ),
        "model": ModelPrint(source="m", sha256="w", architecture="L", num_parameters=1, num_layers=1, template="chat"),
        "data": {"forget": DataPrint(source="facts", rows=ROWS, sha256="d")},
        "selection": SelectionPrint(localizer="everything", num_parameters=1, names=[]),
        "before": score,
        "after": score,
        "guard": GuardOutcome(utility_floor=None),
        "seconds": {},
        "peak_memory_mb": 1.0,
        "num_steps": 1,
        "num_epochs": 1.0,
    }
    (folder / RECORD_FILE).write_text(Record(**{**usual, **changes}).model_dump_json(), encoding="utf-8")
    return folder


def test_two_runs(tmp_path: Path) -> None:
    """Level .4 against .3: .1 lower on every row, to the noise of other draws; the perplexities are all the same."""
    found = compare([saved(tmp_path / "a", 0.4), saved(tmp_path / "b", 0.3, seed=1)])
    assert [arm.runs for arm in found.arms] == [[str(tmp_path / "a")], [str(tmp_path / "b")]]
    lower, same = found.differences
    assert (lower.metric, lower.n, lower.better, lower.sentence) == (
        "probability",
        ROWS,
        "lower",
        "lower, which is wanted",
    )
    assert lower.difference == pytest.approx(-0.1, abs=0.03)
    assert lower.low < lower.difference < lower.high < 0
    assert lower.p == pytest.approx(1 / 10000)
    assert lower.p_holm == pytest.approx(2 / 10000)
    assert (same.difference, same.p_holm, same.sentence) == (0, 1, "no difference shown")


def test_the_row_is_found_by_its_id(tmp_path: Path) -> None:
    """The same rows in another order are the same rows; rows that only one run has do not count."""
    a = saved(tmp_path / "a", 0.4)
    turned = [f"r{row}" for row in range(ROWS)][::-1]
    b = saved(tmp_path / "b", 0.4, config={"evaluate": {"max_new_tokens": 64}, "order": "turned"}, ids=turned)
    (probability, _) = compare([a, b]).differences
    values = [read_items(folder / ITEMS_FILE)["after"]["forget"]["probability"] for folder in (a, b)]
    gaps = [float(values[1][row] or 0) - float(values[0][row] or 0) for row in values[0]]
    assert probability.difference == pytest.approx(np.mean(gaps), abs=1e-12)
    assert probability.dz == pytest.approx(np.mean(gaps) / np.std(gaps, ddof=1), abs=1e-9)
    others = saved(tmp_path / "c", 0.3, ids=[f"r{row}" for row in range(20, ROWS + 20)])
    assert {one.n for one in compare([a, others]).differences} == {ROWS - 20}
    none = saved(tmp_path / "d", 0.2, ids=[f"s{row}" for row in range(ROWS)])
    assert compare([a, none]).left_out == [f"{none}: forget/probability", f"{none}: forget/perplexity"]


def test_seeds_are_taken_together(tmp_path: Path) -> None:
    """Three runs of one configuration are one arm; its score is their mean, with a t interval over them."""
    one = [saved(tmp_path / f"a{seed}", 0.4, seed) for seed in range(3)]
    found = compare([*one, saved(tmp_path / "b", 0.3)])
    assert [(arm.name, arm.seeds) for arm in found.arms] == [
        (f"{one[0]} and 2 more", [0, 1, 2]),
        (f"{tmp_path}/b", [0]),
    ]
    score = found.arms[0].scores[0]
    assert score.mean == pytest.approx(np.mean(score.runs))
    assert score.low is not None
    assert score.high is not None
    assert score.low < score.mean < score.high
    assert found.differences[0].first == pytest.approx(score.mean)
    assert found.arms[1].scores[0].low is None


def test_one_run_against_itself_before(tmp_path: Path) -> None:
    """.5 before and .4 after with the same noise: -.1 on every row, so there is no spread to divide by."""
    found = compare([saved(tmp_path / "a", 0.4)])
    assert [arm.name for arm in found.arms] == ["before", "after"]
    assert found.differences[0].difference == pytest.approx(-0.1)
    assert found.differences[0].dz is None


def test_many_comparisons_are_corrected(tmp_path: Path) -> None:
    """Of ten equal arms against one, what one comparison would call a difference may be one in doubt."""
    base = saved(tmp_path / "base", 0.4)
    arms = [saved(tmp_path / f"arm{number}", 0.4 + 1e-9 * number, number) for number in range(1, 11)]
    alone = compare([base, arms[0]], metrics=("probability",)).differences[0]
    together = compare([base, *arms], metrics=("probability",)).differences
    assert together[0].p == alone.p == alone.p_holm
    assert together[0].p_holm >= together[0].p
    assert max(one.p_holm for one in together) == 1
    assert len(together) == 10


def evaluated(folder: Path, **levels: float) -> Path:
    """An evaluation of models with these probabilities on two sets of forget and retain rows."""
    folder.mkdir()
    sets = {"target": "forget", "kept": "retain"}
    rows = [
        {"stage": model, "split": part, "id": f"{part}{row}", "probability": level + row / 100}
        for model, level in levels.items()
        for part in sets
        for row in range(ROWS)
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / ITEMS_FILE)
    data = {part: DataPrint(source="suite", rows=ROWS, sha256=part) for part in sets}
    records = [
        Evaluation(
            model=model,
            data=data,
            roles=sets,
            scores={part: {"probability": Score(value=level, better="higher")} for part in sets},
            aggregates={},
            kinds={},
        )
        for model, level in levels.items()
    ]
    text = json.dumps([record.model_dump(mode="json") for record in records])
    (folder / EVALUATION_FILE).write_text(text, encoding="utf-8")
    return folder


def test_models_of_evaluations(tmp_path: Path) -> None:
    """Each model is an arm; OpenUnlearning's name of a metric means the set of its role, whatever the set's name."""
    first, second = evaluated(tmp_path / "one", a=0.1, b=0.3), evaluated(tmp_path / "two", c=0.2)
    found = compare([first, second / EVALUATION_FILE])
    assert [(arm.name, arm.seeds) for arm in found.arms] == [("a", []), ("b", []), ("c", [])]
    assert [(one.arm, one.set, round(one.difference, 6)) for one in found.differences] == [
        ("b", "target", 0.2),
        ("b", "kept", 0.2),
        ("c", "target", 0.1),
        ("c", "kept", 0.1),
    ]
    named = compare([first], metrics=("retain_Q_A_Prob",)).differences
    assert [(one.set, one.metric, one.sentence) for one in named] == [
        ("kept", "probability", "higher, which is wanted")
    ]
    with pytest.raises(UserError, match="a single model"):
        compare([second])
    (second / EVALUATION_FILE).write_text("[{}]", encoding="utf-8")
    with pytest.raises(UserError, match=r"evaluation\.json: not an evaluation's records: 0\.model"):
        compare([first, second])


def test_what_may_not_be_compared(tmp_path: Path) -> None:
    a = saved(tmp_path / "a", 0.4)
    other_data = saved(tmp_path / "b", 0.3, data={"forget": DataPrint(source="others", rows=ROWS, sha256="e")})
    otherwise = saved(tmp_path / "c", 0.3, config={"seed": 0, "evaluate": {"max_new_tokens": 8}})
    again = saved(tmp_path / "d", 0.4)
    torn = saved(tmp_path / "e", 0.2)
    (torn / ITEMS_FILE).write_bytes(b"PAR1")
    lone = saved(tmp_path / "f", 0.1)
    (lone / ITEMS_FILE).unlink()
    good = saved(tmp_path / "g", 0.2)
    twice = saved(tmp_path / "h", 0.2, ids=["r0"] * ROWS)
    for paths, options, message in (
        ([a, other_data], {}, r"b: its forget rows \(others\) are not those of .*a \(facts\)"),
        ([a, otherwise], {}, r"c: measured with evaluate\.max_new_tokens = 8, but .*a with 64"),
        ([a, again], {}, r"d: the same as .*a, with the same seed"),
        ([a, a], {}, "a: named twice"),
        ([a, saved(tmp_path / "i", 0.4, 1)], {}, "differ by their seed only"),
        ([a, torn], {}, r"items\.parquet: not a Parquet file"),
        ([a, lone], {}, r"items\.parquet: no such file"),
        ([a, twice], {}, r"row 'r0' of forget occurs twice"),
        ([a, tmp_path], {}, "is it the directory of a finished run"),
        ([a, good], {"sets": ["forgot"]}, r"--set: no set 'forgot'.*did you mean forget"),
        ([a, good], {"metrics": ["probabilty"]}, r"--metric: no metric 'probabilty'.*did you mean probability"),
    ):
        with pytest.raises(UserError, match=message):
            compare(paths, **options)  # type: ignore[arg-type]


def test_the_command(tmp_path: Path) -> None:
    a, b = saved(tmp_path / "a", 0.4), saved(tmp_path / "b", 0.3)
    runner = CliRunner(env={"COLUMNS": "140"})
    shown = runner.invoke(app, ["compare", str(a), str(b / RECORD_FILE), "--out", str(tmp_path / "c.json")])
    assert shown.exit_code == 0, shown.output
    assert "-0.10 [-0.10, -0.10]" in shown.output
    assert "1 of 2 comparisons: no difference shown" in " ".join(shown.output.split())
    printed = runner.invoke(app, ["compare", str(a), str(b), "--json"])
    assert json.loads(printed.output)["differences"] == json.loads((tmp_path / "c.json").read_text())["differences"]
    everything = runner.invoke(app, ["compare", str(a), str(b), "--all"])
    assert "perplexity" in everything.output
    assert "perplexity" not in shown.output
    refused = runner.invoke(app, ["compare", str(a), str(b), "--stage", "during"])
    assert isinstance(refused.exception, UserError)


def test_what_each_run_was_warned_of_and_other_layouts_are_told(tmp_path: Path) -> None:
    """A warning of both runs stands once; a system prompt of one of them may make the difference."""
    both, own = "forget: 2 of 60 rows repeat.", "Before the run 3 of 60 answers were cut."
    config = {"recipe": "npo", "seed": 0, "evaluate": {"max_new_tokens": 64}, "model": {"template": "chat"}}
    first = saved(tmp_path / "a", 0.4, warnings=[both], config=config)
    prompted = {**config, "model": {"template": "chat", "system_prompt": "Be brief."}}
    second = saved(tmp_path / "b", 0.3, seed=1, warnings=[both, own], config=prompted)
    layout, common, single = compare([first, second]).warnings
    assert layout.startswith(f"{second} and {first} were asked in different layouts (model.system_prompt)")
    assert common == f"{first}, {second}: {both}"
    assert single == f"{second}: {own}"
    printed = CliRunner().invoke(app, ["compare", str(first), str(second)], env={"COLUMNS": "200"})
    assert own in " ".join(printed.output.split())


@pytest.mark.parametrize("key", ["match", "max_new_tokens", "temperature"])
def test_scores_that_were_made_in_other_ways_are_not_compared(tmp_path: Path, key: str) -> None:
    """Also where one record does not know the option: it had another default then."""
    first = saved(tmp_path / "a", 0.4)
    config = {"recipe": "npo", "seed": 1, "evaluate": {"max_new_tokens": 64, key: 7}}
    with pytest.raises(UserError, match=f"measured with evaluate.{key} = 7"):
        compare([first, saved(tmp_path / "b", 0.3, seed=1, config=config)])
