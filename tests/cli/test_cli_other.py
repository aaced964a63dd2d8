"""Listings, show, eval, report and teach."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from expunge.cli.listing import KINDS, OLD
from expunge.core import plugins
from expunge.core.catalog import recipe_names
from expunge.core.records import read_record
from expunge.core.toml import read_toml

FOLDERS = {
    "edits": "edit",
    "metrics": "evaluate/metrics",
    "set-metrics": "evaluate/set_metrics",
    "whitebox": "evaluate/whitebox",
    "diagnostics": "diagnose",
    "data": "data/sources",
}


@pytest.mark.parametrize("kind", KINDS)
def test_listings_are_arrays_of_named_objects(expunge: Any, kind: str) -> None:
    rows = expunge("list", kind, "--json").json()
    names = [row["name"] for row in rows]
    assert names
    assert len(set(names)) == len(names)
    assert all(row["summary"] for row in rows)
    if kind not in ("recipes", "suites", "reproductions", "models"):
        assert names == plugins.names(FOLDERS.get(kind, kind))
    table = expunge("list", kind)
    assert (table.code, table.err) == (0, "")
    assert all(name in table.out for name in names)


def test_list_alone_counts_what_can_be_listed(expunge: Any) -> None:
    rows = {row["name"]: row for row in expunge("list", "--json").json()}
    assert set(rows) == set(KINDS)
    assert rows["recipes"]["count"] == len(recipe_names())
    assert rows["forget"]["count"] == len(plugins.names("forget"))
    wrong = expunge("list", "metrix")
    assert (wrong.code, wrong.out) == (2, "")
    assert "did you mean metrics" in wrong.err


@pytest.mark.parametrize(("name", "kind"), OLD.items())
def test_old_listing_commands_still_work_with_a_note_on_stderr(expunge: Any, name: str, kind: str) -> None:
    old = expunge(name, "--json")
    assert old.json() == expunge("list", kind, "--json").json()
    assert old.err.splitlines() == [f"expunge: `expunge {name}` is deprecated; use `expunge list {kind}`"]


@pytest.mark.parametrize("command", ["data", "models"])
def test_commands_without_a_name_list_too(expunge: Any, command: str) -> None:
    assert expunge(command, "--json").json() == expunge("list", command, "--json").json()


@pytest.mark.parametrize("columns", ["80", "200"])
def test_help_groups_the_commands_and_hides_old_names(
    expunge: Any, columns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every command has one line, which is never broken."""
    monkeypatch.setenv("COLUMNS", columns)
    shown = expunge("--help").out
    panels = re.findall(r"^(\w+):\n((?:  \S.*\n)+)", shown, flags=re.MULTILINE)
    commands = {panel: [line.split()[0] for line in lines.splitlines()] for panel, lines in panels}
    del commands["Options"]
    assert list(commands) == ["Unlearn", "Measure", "Attack", "Inspect", "Reference"]
    found = [name for names in commands.values() for name in names]
    assert {"run", "eval", "attack", "report", "diagnose", "list", "show"} <= set(found)
    assert len(found) == len(set(found))
    assert not set(found) & set(OLD)
    assert all(len(line) <= 80 for line in shown.splitlines())
    assert not re.search(r"^ {10,}\S", shown.partition("Unlearn:")[2], flags=re.MULTILINE)


def test_show_recipe_names_every_option_with_its_text(expunge: Any) -> None:
    rows = {row["name"]: row for row in expunge("show", "recipe", "npo", "--json").json()}
    assert rows["forget"]["value"] == "npo"
    assert rows["forget.beta"]["value"] == 0.1
    assert rows["train.lr"]["value"] == 1e-5
    assert {"retain.reduction", "combine.retain_weight", "guard.utility_floor", "evaluate.samples"} <= set(rows)
    assert {"report.show_forget_text", "model.template", "train.epochs"} <= set(rows)
    assert rows["evaluate.options.cosine_similarity.encoder"]["value"] == "all-minilm-l6-v2"
    assert rows["evaluate.options.privleak.attack"]["value"] == "mia_min_k"
    assert all(row["meaning"] for row in rows.values())


@pytest.mark.parametrize("name", recipe_names())
def test_show_works_for_every_recipe(expunge: Any, name: str) -> None:
    assert expunge("show", "recipe", name, "--json").json()


def test_eval_prints_and_writes_the_same_scores_as_the_run(
    expunge: Any, tiny_folder: Path, fact_files: dict[str, Path], finished: Any, tmp_path: Path
) -> None:
    data = [part for name, path in fact_files.items() for part in ("--data", f"{name}={path}")]
    options = ["--samples", "2", "--max-new-tokens", "24", "--quiet", "--json", "--out", tmp_path / "scores"]
    printed = expunge("eval", tiny_folder, *data, *options).json()
    assert [printed] == json.loads((tmp_path / "scores" / "evaluation.json").read_text(encoding="utf-8"))
    record = read_record(finished.folder).model_dump()
    for split, scores in printed["scores"].items():
        assert "original model" in scores.pop("cosine_similarity")["reason"]
        assert record["before"][split].pop("cosine_similarity")["value"] == 1.0
        assert scores == record["before"][split]
    assert printed["aggregates"]["fe5"]["value"] is None
    aggregates = finished.outcome.json()["aggregates"]
    assert aggregates == {stage: record[f"aggregates_{stage}"] for stage in ("before", "after")}
    assert (
        aggregates["after"]["fe4_without_entailment"]["value"] > aggregates["before"]["fe4_without_entailment"]["value"]
    )
    assert {name: row["sha256"] for name, row in printed["data"].items()} == {
        name: row["sha256"] for name, row in record["data"].items()
    }


def test_eval_of_the_saved_model_gives_the_after_scores(
    expunge: Any, fact_files: dict[str, Path], finished: Any
) -> None:
    data = ["--data", str(fact_files["forget"])]  # without a split's name it is the forget split
    options = ["--samples", "2", "--max-new-tokens", "24", "--quiet"]
    printed = expunge("eval", finished.folder / "model", *data, *options, "--json").json()
    after = read_record(finished.folder).model_dump()["after"]["forget"]
    assert printed["scores"]["forget"].pop("cosine_similarity")["value"] is None
    assert 0 <= after.pop("cosine_similarity")["value"] < 1
    for metric, score in after.items():  # the rows of a pass decide how its products are rounded
        own = printed["scores"]["forget"].pop(metric)
        assert {key: value for key, value in own.items() if not isinstance(value, float)} == {
            key: value for key, value in score.items() if not isinstance(value, float)
        }, metric
        numbers = {key: value for key, value in score.items() if isinstance(value, float)}
        assert {key: own[key] for key in numbers} == pytest.approx(numbers, rel=1e-6), metric
    assert not printed["scores"]["forget"]
    table = expunge("eval", finished.folder / "model", *data, *options)
    assert "keyword_recall" in table.out


def test_eval_takes_options_of_metrics(expunge: Any, tiny_folder: Path, fact_files: dict[str, Path]) -> None:
    """With the stored answer as reference no run is needed for a similarity, nor for forget efficacy without NLI."""
    given = ["eval", tiny_folder, "--data", fact_files["forget"], "--samples", "0", "--max-new-tokens", "24", "--quiet"]
    stored = "evaluate.options.cosine_similarity.reference=stored"
    printed = expunge(*given, "--set", stored, "--json").json()
    score = printed["scores"]["forget"]["cosine_similarity"]
    assert score["value"] > 0.9
    assert score["reference"] == "the stored answer, by all-minilm-l6-v2"
    assert printed["aggregates"]["fe4_without_entailment"]["value"] < 0.3
    table = expunge(*given, "--set", stored)
    assert "fe4_without_entailment" in " ".join(table.out.split())
    for wrong, message in (
        ("evaluate.options.cosine_similarity.referense=stored", "did you mean reference"),
        ("evaluate.option.cosine_similarity=1", "did you mean options"),
        ("train.lr=1", "only options of 'evaluate'"),
        ("evaluate=1", "table of options"),
    ):
        outcome = expunge(*given, "--set", wrong)
        assert (outcome.code, outcome.out) == (2, "")
        assert message in outcome.err


def test_report_makes_the_same_page_again(expunge: Any, finished: Any) -> None:
    page = (finished.folder / "report.html").read_bytes()
    (finished.folder / "report.html").unlink()
    assert "report.html" in expunge("report", finished.folder).out
    assert (finished.folder / "report.html").read_bytes() == page
    assert expunge("report", finished.folder, "--json").json() == read_record(finished.folder).model_dump(mode="json")


def test_teach_through_the_command(
    expunge: Any, tiny_folder: Path, fact_files: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "teach.toml").write_text(
        f'[model]\nname = "{tiny_folder}"\n[data]\nteach = ["{fact_files["retain"]}"]\n[train]\nepochs = 1\n',
        encoding="utf-8",
    )
    arguments = ["teach", tmp_path / "teach.toml", "--out", tmp_path / "taught", "--json", "--quiet"]
    printed = expunge(*arguments).json()
    assert printed["cached"] is False
    assert printed["rows"] == 16
    assert (tmp_path / "taught" / "model" / "model.safetensors").is_file()
    assert expunge(*arguments).json() == {**printed, "cached": True}


def test_version_is_the_packages(expunge: Any) -> None:
    found = read_toml(plugins.ROOT.parent.parent / "pyproject.toml")
    assert expunge("--version").out.strip() == found["project"]["version"]


ANSWERED: list[tuple[list[str], int]] = [
    *((arguments, 0) for arguments in (["--help"], ["run", "--help"], ["diagnose", "--help"], ["--version"])),
    *((["list", *kind], 0) for kind in ([], ["metrics"], ["recipes"], ["models"])),
    (["data"], 0),
    *((["show", *thing], 0) for thing in (["recipe", "bs_s"], ["attack", "gcg"], ["diagnostic", "norms"])),
    (["no-such-command"], 2),
    (["show", "recipe", "nppo"], 2),
    (["run", "gone.toml"], 2),
    (["run", "--recipe", "nppo"], 2),
    (["run", "--set", "train.lrr=1"], 2),
    (["run", "--set", "forget.betta=1"], 2),
    (["run", "--set", "attacks.sampling.smaples=1"], 2),
    (["run", "--set", "evaluate.options.cosine_similarity.referense=stored"], 2),
    (["run", "--set", "evaluate.metrics=['keyword_recal']"], 2),
    (["run", "--forget", "gone.jsonl", "--retain", "people:retain"], 2),
    (["run", "--model", "./gone"], 2),
    (["eval", "./gone"], 2),
    (["eval", "smollm2-135m", "--suite", "toffu"], 2),
    (["eval", "smollm2-135m", "--data", "forget=gone.jsonl"], 2),
    (["attack", "./gone"], 2),
    (["attack", "smollm2-135m", "--attack", "samplng"], 2),
    (["diagnose", "norms", "./gone"], 2),
    (["locate", "./gone"], 2),
    (["locate", "smollm2-135m", "--by", "causal_tracin"], 2),
    (["report", "gone"], 2),
    (["continual", "gone.toml"], 2),
    (["teach", "gone.toml"], 2),
    (["meta-eval", "gone.toml"], 2),
    (["reproduce", "belief"], 2),
]
"""Command lines that need no model, with their exit codes."""


def test_what_needs_no_model_does_not_import_torch(tmp_path: Path) -> None:
    """In a fresh interpreter, since this one has torch already."""
    script = (
        "import sys\n"
        "from expunge.cli.main import main\n"
        f"for arguments, expected in {ANSWERED!r}:\n"
        "    sys.argv, code = ['expunge', *arguments], 0\n"
        "    try:\n"
        "        main()\n"
        "    except SystemExit as stop:\n"
        "        code = stop.code or 0\n"
        "    assert code == expected, (arguments, code)\n"
        "    heavy = {'torch', 'transformers', 'datasets'} & set(sys.modules)\n"
        "    assert not heavy, (arguments, heavy)\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 0, result.stderr


def test_continual_forgets_in_turn_and_finds_itself_done(
    expunge: Any, tiny_folder: Path, fact_files: dict[str, Path], tmp_path: Path
) -> None:
    """Two rows each, one epoch: what the command prints, and that a second call does nothing again."""
    file, out = tmp_path / "sequence.toml", tmp_path / "out"
    forget = [f'{{name = "{fact_files["forget"]}", skip = {skip}, limit = 2}}' for skip in (0, 2)]
    file.write_text(
        f'recipe = "npo"\n[model]\nname = "{tiny_folder}"\n'
        f'[data]\nretain = "{fact_files["retain"]}"\nrequests = [{", ".join(forget)}]\n'
        '[train]\nepochs = 1\n[evaluate]\nmetrics = ["probability"]\n'
    )
    shown = expunge("continual", file, "--out", out, "--quiet")
    assert shown.code == 0, shown.err
    assert "After 2 of 2 requests" in shown.out
    assert (out / "sequence.html").is_file()
    before = (out / "sequence.json").read_bytes()
    again = expunge("continual", file, "--out", out, "--resume", "--json").json()
    assert len(again["steps"]) == 3
    assert (out / "sequence.json").read_bytes() == before
    refused = expunge("continual", file, "--out", out)
    assert (refused.code, "add --resume" in refused.err) == (2, True)
