"""Where commands write: what is refused before any work, what goes on after a stop, and what two of them share."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from expunge.cli.main import main
from expunge.core.records import read_attacks, read_record
from expunge.workflows import attack

COMMANDS: dict[str, list[str]] = {
    "run": ["run", "--model", "nowhere"],
    "diagnose squeeze": ["diagnose", "squeeze", "--model", "nowhere"],
    "diagnose layers": ["diagnose", "layers", "--model", "nowhere"],
    "eval": ["eval", "nowhere"],
    "attack": ["attack", "nowhere"],
    "diagnose norms": ["diagnose", "norms", "nowhere"],
    "locate": ["locate", "nowhere"],
    "reproduce": ["reproduce", "beliefs"],
    "compare": ["compare", "nowhere"],
    "locate file": ["locate", "nowhere"],
}
"""Command lines that would fail for their model too, later."""


@pytest.mark.parametrize("name", COMMANDS)
def test_places_that_cannot_be_written_to_are_refused_first(
    expunge: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("nowhere-link").symlink_to("gone")
    os.mkfifo("pipe")  # never a real device: who runs the tests as root would lose it to a fault here
    ending = ".json" if name == "locate file" else ""
    for out in ("", "x" * 300 + ending, "file/below" + ending, f"nowhere-link/x{ending}", "nowhere-link", "pipe"):
        result = expunge(*COMMANDS[name], "--out", out)
        assert result.code == 2, (out, result.err)
        assert result.err.startswith("expunge: --out" if out else "expunge: "), (out, result.err)
        assert len(result.err.splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "nowhere-link", "pipe"]
    assert stat.S_ISFIFO(Path("pipe").stat().st_mode)


def test_what_a_loss_refuses_is_refused_before_anything_is_written(
    expunge: Any, subject: list[str], quick: list[str], tmp_path: Path
) -> None:
    for more in (
        ["--recipe", "adaptive_rmu", "--set", "forget.layer=99"],
        ["--set", "train.lr=inf"],
        ["--set", "train.lr=nan"],
        ["--set", "guard.stop_above={retain_loss=inf}"],
        ["--push-to-hub", "///"],
    ):
        result = expunge("run", *subject, *quick, *more, "--out", tmp_path / "out")
        assert result.code == 2, result.err
        assert "measuring" not in result.err
        assert not (tmp_path / "out").exists(), more


def test_resume_is_good_for_the_first_call_too(
    expunge: Any, subject: list[str], quick: list[str], tmp_path: Path
) -> None:
    """A job script gives one line again and again; Ctrl-C says which; a killed process had left its lock."""
    out = tmp_path / "out"
    out.mkdir()
    (out / ".lock").touch()
    less = ["--set", "attacks.names=[]", "--set", "evaluate.metrics=['probability']"]
    line = ["run", *subject, *quick, *less, "--out", out, "--resume", "--quiet"]
    with pytest.MonkeyPatch.context() as patch:

        def stopped(*_: Any, **__: Any) -> None:
            raise KeyboardInterrupt

        patch.setattr("expunge.workflows.run.unlearn", stopped)
        first = expunge(*line[:-2], "--quiet")
    assert first.code == 130
    assert first.err.strip().endswith(f"--out {out} --quiet --resume")
    assert first.err.startswith("expunge: stopped; continue with: expunge run ")
    assert (out / "run.toml").is_file()
    assert expunge(*line).code == 0
    before = (out / "record.json").read_bytes()
    assert expunge(*line).code == 0
    assert (out / "record.json").read_bytes() == before
    assert expunge("run", "--resume", "--out", tmp_path / "mistyped").code == 2
    changed = expunge(*line, "--set", "seed=1")
    assert changed.code == 2
    assert "different: seed" in changed.err


def test_a_run_that_diverges_can_be_read(expunge: Any, subject: list[str], quick: list[str], tmp_path: Path) -> None:
    """Without a guard it fails in one line, or ends with a record that every command reads; never in between."""
    out = tmp_path / "out"
    more = ["--recipe", "ga", "--set", "guard.utility_floor=0", "--set", "attacks.names=[]"]
    for lr in ("30", "1e30"):
        result = expunge("run", *subject, *quick, *more, "--set", f"train.lr={lr}", "--out", out / lr, "--quiet")
        if result.code:
            assert result.code == 1
            assert "lower train.lr" in result.err.splitlines()[-1]
            assert not (out / lr / "record.json").exists()
        else:
            assert read_record(out / lr).steps
            assert expunge("report", out / lr).code == 0


def test_eval_completes_what_a_kill_left_and_overwrites_nothing(
    expunge: Any, tiny_folder: Path, fact_files: dict[str, Path], tmp_path: Path
) -> None:
    line = ["eval", tiny_folder, "--data", f"forget={fact_files['forget']}", "--samples", "0", "--show-text", "--out"]
    line[1:1] = ["--set", "evaluate.metrics=['probability']"]
    assert expunge(*line, tmp_path / "whole").code == 0
    assert stat.S_IMODE((tmp_path / "whole" / "items.parquet").stat().st_mode) == 0o600
    again = expunge(*line, tmp_path / "whole")
    assert (again.code, "never overwritten" in again.err) == (2, True)
    killed = tmp_path / "killed"
    killed.mkdir()
    for name in (".lock", "items.parquet", "scores.csv"):
        (killed / name).write_bytes(b"half")
    assert expunge(*line, killed).code == 0
    assert json.loads((killed / "evaluation.json").read_text())[0]["scores"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "items.parquet").write_bytes(b"not ours")
    assert expunge(*line, tmp_path / "mine").code == 2
    assert (tmp_path / "mine" / "items.parquet").read_bytes() == b"not ours"


def test_two_attacks_at_once_keep_both_results(
    expunge: Any, finished: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second starts and ends while the first one is at work."""
    import shutil

    run = tmp_path / "run"
    shutil.copytree(finished.folder, run)
    real, calls = attack.attack, []

    def slow(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            assert expunge("attack", run, "--attack", "noise", "--quiet").code == 0
        return real(*arguments, **options)

    monkeypatch.setattr(attack, "attack", slow)
    before = {one.name for one in read_attacks(run / "attacks.json").robustness.attacks}
    assert expunge("attack", run, "--attack", "pruning", "--quiet").code == 0
    assert {one.name for one in read_attacks(run / "attacks.json").robustness.attacks} == before | {"noise", "pruning"}


def test_damaged_records_are_one_line(expunge: Any, finished: Any, tmp_path: Path) -> None:
    import shutil

    for name, damage in (
        ("record.json", b"{"),
        ("record.json", b"\xff\xfe"),
        ("attacks.json", b"[]"),
        ("items.parquet", b"PAR1junk"),
    ):
        run = tmp_path / f"{name}-{len(damage)}"
        shutil.copytree(finished.folder, run)
        (run / name).write_bytes(damage)
        result = expunge("report", run)
        assert result.code == 2, (name, result.err)
        assert name in result.err
        assert len(result.err.splitlines()) == 1


def test_running_out_is_one_line(expunge: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of memory as torch says it, of disk as safetensors says it."""
    for text, words in (
        ("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes", "out of memory"),
        ("Error while serializing: I/O error: No space left on device (os error 28)", "no space left"),
    ):

        def fail(*_: Any, text: str = text) -> None:
            raise RuntimeError(text)

        monkeypatch.setattr("expunge.config.load_run", fail)
        result = expunge("run")
        assert (result.code, words in result.err) == (1, True), result.err
    assert main
