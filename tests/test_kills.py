"""The kill harness on the commands that are quick; `python benchmarks/kills.py --kills 200` takes all of them."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import pytest

HARNESS = Path(__file__).parent.parent / "benchmarks" / "kills.py"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_commands_end_as_unbroken_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process of its own, since it changes folder, streams and arguments."""
    spec = importlib.util.spec_from_file_location("kills", HARNESS)
    assert spec is not None
    assert spec.loader is not None
    kills = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "kills", kills)
    spec.loader.exec_module(kills)
    report = tmp_path / "report"
    child = os.fork()
    if not child:
        code = 1
        try:
            ground = tmp_path / "ground"
            ground.mkdir()
            tally = kills.campaign(ground, 8, 1, "teach,eval,locate", lambda text: None)
            report.write_text("\n".join(tally.lines()))
            code = bool(tally.kills < 8 or tally.stuck or tally.differing or tally.stray)
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code == 0, report.read_text() if report.exists() else "the harness failed"
