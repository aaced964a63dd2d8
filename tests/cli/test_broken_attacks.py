"""Attacks that break off: what is kept, what the record says of the error, and the exit code of the commands."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from expunge.attacks.base import Attack, AttackContext, Attempt
from expunge.attacks.engine import attack
from expunge.core.plugins import ROOT
from expunge.core.schema import Frozen
from expunge.core.toml import read_toml
from expunge.workflows.attack import broken


class Breaking(Attack):
    """Yields one variant and runs out of memory in the next, with a row's answer in its message."""

    class Config(Frozen):
        """No options."""

    access = "weights"
    fails: bool = True

    def run(self, context: AttackContext) -> Iterator[Attempt]:
        """One attempt, then the error."""
        yield Attempt("first", [1.0] * len(context.rows))
        if self.fails:
            raise torch.OutOfMemoryError(f"CUDA out of memory while asking for '{context.rows[0].answer}'")


class Fine(Breaking):
    """The same without the error."""

    fails = False

    @property
    def name(self) -> str:
        """Its own."""
        return "fine"


@pytest.fixture
def ground(tiny_folder: Path, examples: Any) -> AttackContext:
    """The tiny model and its facts."""
    from attack_ground import ground, load

    return ground(load(tiny_folder), examples)


def test_an_error_leaves_what_was_found_and_the_other_attacks(ground: AttackContext) -> None:
    card = attack([Breaking(Breaking.Config()), Fine(Fine.Config())], ground)
    first, second = card.attacks
    assert [one.variant for one in first.variants] == ["first"]
    assert first.variants[0].knowledge.value == 1.0
    assert first.failed is not None
    assert first.failed.startswith("the rest was not run for lack of memory")
    assert first.traceback is not None
    assert "in run" in first.traceback
    assert "engine.py" in first.traceback
    assert ground.rows[0].answer not in card.model_dump_json()
    assert second.failed is None
    assert second.traceback is None
    assert [one.name for one in broken(card)] == [first.name]


def test_an_error_on_a_control_is_no_silent_gap(ground: AttackContext) -> None:
    """The model under attack was attacked to the end; its control could not even be loaded."""

    def loader() -> Any:
        if loaded:
            raise OSError("disk gone")
        loaded.append(True)
        return ground.model

    loaded: list[bool] = []
    (found,) = attack([Fine(Fine.Config())], ground, controls={"retrained": loader}).attacks
    assert found.variants[0].knowledge.value == 1.0
    assert found.failed == "on the control 'retrained': OSError: disk gone"
    assert found.variants[0].controls["retrained"].reason == "OSError: disk gone"
    assert found.traceback


def test_commands_finish_and_fail(
    expunge: Any, tiny_folder: Path, fact_files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything is written; exit code 1 and one line; a second call carries the attack out again."""

    def break_off(self: Any, context: AttackContext) -> Iterator[Attempt]:
        raise RuntimeError("no kernel")

    names = [f"--data={name}={path}" for name, path in fact_files.items()]
    call = ["attack", tiny_folder, "--attack", "sampling,noise", "--out", tmp_path / "card", "--quiet", *names]
    call += ["--set", "attacks.sampling.samples=1", "--set", "attacks.sampling.temperatures=[1.0]"]
    call += ["--set", "attacks.noise.draws=1"]
    with monkeypatch.context() as patch:
        patch.setattr("expunge.attacks.noise.Noise.run", break_off)
        failed = expunge(*call)
        loud = expunge(*call, "--verbose")
    assert failed.code == loud.code == 1
    assert failed.err.startswith("expunge: noise failed (RuntimeError: no kernel); all else is done")
    assert len(failed.err.splitlines()) == 1
    assert "in break_off" in loud.err
    card = json.loads((tmp_path / "card/attacks.json").read_text(encoding="utf-8"))["robustness"]["attacks"]
    assert [one["name"] for one in card] == ["sampling", "noise"]
    assert "in break_off" in card[1]["traceback"]
    assert (tmp_path / "card/attacks.html").is_file()
    again = expunge(*call)
    assert again.code == 0, again.err


def test_a_run_with_a_broken_attack_is_saved_and_fails(
    expunge: Any, tiny_folder: Path, fact_files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_off(self: Any, context: AttackContext) -> Iterator[Attempt]:
        raise RuntimeError("no kernel")

    monkeypatch.setattr("expunge.attacks.sampling.Sampling.run", break_off)
    names = [f"--{name}={fact_files[name]}" for name in ("forget", "retain")]
    settings = ["train.epochs=1", "evaluate.samples=0", "attacks.names=['sampling']", "evaluate.max_new_tokens=8"]
    outcome = expunge(
        "run",
        f"--model={tiny_folder}",
        *names,
        "--recipe=npo",
        *(part for one in settings for part in ("--set", one)),
        *("--out", tmp_path / "out", "--quiet"),
    )
    assert outcome.code == 1
    assert "sampling failed (RuntimeError: no kernel)" in outcome.err
    for name in ("record.json", "report.html", "model/config.json"):
        assert (tmp_path / "out" / name).is_file()


def test_the_readme_counts_families_and_attacks() -> None:
    words = {16: "sixteen", 17: "seventeen", 18: "eighteen"}
    readme = (ROOT.parent.parent / "README.md").read_text(encoding="utf-8")
    families = read_toml(ROOT / "attacks/families.toml")
    assert f"{words[len(families)]} families of prompts" in " ".join(readme.split())
