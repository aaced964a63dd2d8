"""`expunge diagnose NAME` on a finished run that steered, and on plain models."""

from __future__ import annotations

import json
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from test_cli_refusals import refused

from expunge.core.plugins import names
from expunge.core.report_section import Diagnosis

SMALL = {
    "alignment": (),
    "confidence": ("max_new_tokens=4",),
    "conflict": (),
    "direction_ablation": ("max_new_tokens=8",),
    "norms": (),
    "noise_sensitivity": ("scales=[0.5]", "mode=mean_vector"),
}


@pytest.fixture(scope="module")
def steered_run(
    expunge: Any, tiny_folder: Path, fact_files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Two epochs of RMU with few and short answers measured."""
    folder = tmp_path_factory.mktemp("steered") / "run"
    data = [f"--{name}={fact_files[name]}" for name in ("forget", "retain")]
    few = (
        "train.epochs=2",
        "evaluate.samples=0",
        "evaluate.max_new_tokens=8",
        "evaluate.metrics=['probability']",
        "combine.watch_conflict=true",
    )
    settings = [part for setting in few for part in ("--set", setting)]
    done = expunge("run", f"--model={tiny_folder}", *data, "--recipe=rmu", *settings, "--out", folder, "--quiet")
    assert done.code == 0, done.err
    return folder


def sets(name: str, *more: str) -> list[str]:
    return [part for setting in (*SMALL[name], "max_rows=3", *more) for part in ("--set", setting)]


def test_every_diagnostic_is_a_command_and_is_tried_here() -> None:
    assert sorted([*SMALL, "entanglement"]) == names("diagnose")  # which needs more rows than the run has


def test_entanglement_of_a_model(
    expunge: Any, tiny_folder: Path, facts: dict[str, list[dict[str, Any]]], fact_files: dict[str, Path], tmp_path: Path
) -> None:
    """Twelve rows of each kind give a value for each block and measure; the eight of the forget file are refused."""
    more = tmp_path / "forget.jsonl"
    rows = [*facts["forget"], *facts["neighbour"]]
    more.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    def look(forget: Path, out: str) -> Any:
        data = ["--data", f"forget={forget}", "--data", f"retain={fact_files['retain']}"]
        return expunge("diagnose", "entanglement", tiny_folder, *data, "--out", tmp_path / out, "--json", "--quiet")

    found = Diagnosis.model_validate(look(more, "enough").json())
    table = found.finding.tables[0]
    assert [row[0] for row in table.rows] == [0, 1, 2]
    assert len(found.finding.charts) == len(table.columns) - 1 >= 3
    refused(look(fact_files["forget"], "few"), "components", "got 8")


class Links(HTMLParser):
    """Every address that a page would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attributes if name in ("src", "href") and value]


@pytest.mark.parametrize("name", sorted(SMALL))
def test_a_run_gets_a_record_and_a_page_of_its_own(
    expunge: Any, steered_run: Path, facts: dict[str, list[dict[str, Any]]], name: str
) -> None:
    """What is printed is what is recorded; the page fetches nothing, draws every chart and holds no forget text."""
    printed = expunge("diagnose", name, steered_run, *sets(name), "--json", "--quiet").json()
    record = (steered_run / "diagnose" / f"{name}.json").read_text(encoding="utf-8")
    page = (steered_run / "diagnose" / f"{name}.html").read_text(encoding="utf-8")
    assert json.loads(record) == printed
    found = Diagnosis.model_validate_json(record)
    assert set(found.models) == {"original", "unlearned"}
    assert found.options["max_rows"] == 3
    looked = name not in ("norms", "conflict")  # these read what the run logged
    assert not looked or found.data["forget"].rows == len(facts["forget"])
    links = Links()
    links.feed(page)
    assert not links.found
    assert page.count('class="spec"') == len(found.finding.charts) > 0
    words = unescape(" ".join(re.sub(r"<[^>]*>", " ", page).split()))
    assert found.finding.tables[0].caption in words
    assert not any(row["question"] in text for row in facts["forget"] for text in (page, record))
    refused(expunge("diagnose", name, steered_run, "--quiet"), f"{name}.json", "choose another --out")


def test_the_terminal_shows_the_sentence_and_the_table(expunge: Any, steered_run: Path, tmp_path: Path) -> None:
    shown = expunge("diagnose", "alignment", steered_run, *sets("alignment"), "--out", tmp_path, "--quiet")
    assert shown.code == 0, shown.err
    assert "Median cosine with the direction, at block 1" in shown.out
    assert "median" in shown.out
    assert "unlearned" in shown.out
    assert str(tmp_path) in shown.out.replace("\n", "")


def test_a_plain_model_on_other_rows(
    expunge: Any, tiny_folder: Path, fact_files: dict[str, Path], tmp_path: Path
) -> None:
    data = f"forget={fact_files['neighbour']}"
    found = expunge(
        "diagnose", "alignment", tiny_folder, "--data", data, *sets("alignment"), "--out", tmp_path, "--json", "--quiet"
    ).json()
    assert set(found["models"]) == {"original"}
    assert set(found["data"]) == {"forget"}


@pytest.mark.parametrize(
    ("name", "arguments", "parts"),
    [
        ("direction_ablation", ["MODEL"], ["direction_ablation", "is no directory of a finished run"]),
        ("alignment", ["nowhere/to/be"], ["original model", "nowhere/to/be", "no such file or folder"]),
        ("alignment", ["MODEL", "--set", "layr=1"], ["unknown key 'alignment.layr'", "did you mean layer?"]),
        ("alignment", ["MODEL", "--set", "layer=9"], ["alignment.layer", "no layer 9", "0 to 2"]),
        ("alignment", ["MODEL", "--data", "retian=x.jsonl"], ["--data retian=x.jsonl", "did you mean retain?"]),
        ("alignment", ["MODEL", "--data", "retain=people:retain"], ["data.forget", "--data forget=facts.jsonl"]),
        ("alignment", ["MODEL", "--data", "x.jsonl"], ["x.jsonl", "no such file"]),
        ("alignment", ["MODEL", "--template", "prose"], ["model.template", "prose"]),
        ("noise_sensitivity", ["MODEL", "--set", "scales=[0]"], ["noise_sensitivity.scales", "greater than 0"]),
        ("noise_sensitivity", ["MODEL", "--set", "scales=[]"], ["noise_sensitivity.scales", "at least 1"]),
        ("noise_sensitivity", ["MODEL", "--set", "layer=2"], ["no block above layer 2"]),
        ("confidence", ["MODEL", "--set", "max_new_tokens=0"], ["confidence.max_new_tokens", "0"]),
    ],
)
def test_mistakes_are_told_in_one_line(
    expunge: Any, tiny_folder: Path, tmp_path: Path, name: str, arguments: list[str], parts: list[str]
) -> None:
    given = [str(tiny_folder) if argument == "MODEL" else argument for argument in arguments]
    out = tmp_path / "out"
    refused(expunge("diagnose", name, *given, "--out", out, "--quiet"), *parts)
    assert not out.exists()


def test_an_unfinished_run_and_moved_data_are_refused(expunge: Any, steered_run: Path, tmp_path: Path) -> None:
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    (unfinished / "run.toml").write_bytes((steered_run / "run.toml").read_bytes())
    refused(expunge("diagnose", "alignment", unfinished, "--quiet"), "no record.json here")
    other = tmp_path / "other"
    (other / "model").mkdir(parents=True)
    for path in (steered_run / "model").iterdir():
        (other / "model" / path.name).symlink_to(path)
    record = json.loads((steered_run / "record.json").read_text(encoding="utf-8"))
    record["data"]["forget"]["sha256"] = "0" * 64
    (other / "record.json").write_text(json.dumps(record), encoding="utf-8")
    refused(expunge("diagnose", "alignment", other, "--quiet"), "data.forget", "does not hold the rows")


def test_options_are_shown_with_their_meaning(expunge: Any) -> None:
    rows = expunge("show", "diagnostic", "noise_sensitivity", "--json").json()
    assert {"noise_sensitivity.layer", "noise_sensitivity.scales"} <= {row["name"] for row in rows}
    assert all(row["meaning"] for row in rows)
    refused(expunge("show", "diagnostic", "noise_sensitivit"), "no 'noise_sensitivit'", "noise_sensitivity")
