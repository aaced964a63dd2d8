"""`expunge attack` and the card in a run's own record and page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from expunge.core.records import read_record

QUICK = ["--set", "attacks.sampling.samples=2", "--set", "attacks.sampling.temperatures=[1.0]", "--quiet"]


@pytest.fixture
def data(fact_files: dict[str, Path]) -> list[str]:
    """The facts by split."""
    return [part for name, path in fact_files.items() for part in ("--data", f"{name}={path}")]


def test_a_run_tries_prompts_by_itself_and_says_so(finished: Any) -> None:
    """Prompts only, within the budget; the worst case is in the verdict, the card in the page."""
    card = read_record(finished.folder).robustness
    assert card is not None
    assert {one.name for one in card.attacks} == {"prompting", "sampling", "leakage"}
    assert {one.access for one in card.attacks} == {"prompts"}
    assert card.budget == 60
    worst = max(one.worst.knowledge.value for one in card.attacks if one.worst)
    assert f"attacked, at worst {worst:.0%}" in finished.outcome.json()["verdict"]
    assert "Robustness" in (finished.folder / "report.html").read_text(encoding="utf-8")


def test_a_model_that_knows_beside_one_that_never_did(
    expunge: Any, tiny_folder: Path, retrained_folder: Path, data: list[str], tmp_path: Path
) -> None:
    """The original itself is attacked: all is said plainly; the control says nothing."""
    out = tmp_path / "card"
    controls = ["--original", tiny_folder, "--reference", retrained_folder, "--out", out]
    printed = expunge("attack", tiny_folder, "--attack", "sampling", *data, *QUICK, *controls, "--json").json()
    card = printed["robustness"]
    assert card["unlearned"]["value"] > 0.8
    assert card["controls"]["retrained"]["value"] < 0.2
    (attacked,) = card["attacks"]
    for score in attacked["variants"]:
        assert score["recovered"]["value"] is None
        assert score["recovered"]["reason"]
    assert json.loads((out / "attacks.json").read_text(encoding="utf-8")) == printed
    brief = expunge("attack", tiny_folder, "--attack", "sampling", *data, *QUICK, *controls).out
    full = expunge("attack", tiny_folder, "--attack", "sampling", *data, *QUICK, *controls, "--verbose").out
    assert brief.lstrip().startswith("Asked plainly")
    assert "Robustness card" in brief
    assert "Every variant" in full
    assert "Every variant" not in brief
    again = expunge("attack", tiny_folder, "--attack", "sampling", *data, *QUICK, *controls, "--json").json()
    assert again["robustness"]["attacks"] == card["attacks"], "a second call finds what was done"


def test_two_cards_side_by_side(
    expunge: Any, tiny_folder: Path, finished: Any, data: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "other"
    expunge("attack", tiny_folder, "--attack", "sampling", *data, *QUICK, "--out", out)
    shown = expunge("report", finished.folder, out)
    assert shown.code == 0
    assert "an adversary gets least from" in shown.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--attack", "samplng"], "did you mean sampling"),
        (["--attack", "interpolation"], "original"),
        (["--attack", "quantization", "--access", "prompts"], "weights"),
        (["--attack", "sampling", "--budget", "0"], "budget"),
        (["--attack", "prompting", "--set", "attacks.prompting.families=['role_pley']"], "did you mean role_play"),
        (["--attack", "sampling", "--set", "attacks.sampling.smaples=1"], "did you mean samples"),
        (["--attack", "sampling", "--original", "nowhere"], "nowhere"),
    ],
)
def test_what_cannot_be_right_is_refused(
    expunge: Any, tiny_folder: Path, data: list[str], arguments: list[str], message: str, tmp_path: Path
) -> None:
    outcome = expunge("attack", tiny_folder, *data, *arguments, "--out", tmp_path / "out", "--quiet")
    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.err
    assert outcome.err.count("\n") == 1
    assert not (tmp_path / "out").exists()
