"""The real command, run in this process."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from expunge.cli.main import main


class Outcome(NamedTuple):
    """What a command left on the terminal."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """Standard output as one JSON document; fails on a failed command."""
        assert self.code == 0, self.err
        return json.loads(self.out)


Expunge = Callable[..., Outcome]


def _expunge(*arguments: object) -> Outcome:
    out, err, argv = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["expunge", *map(str, arguments)]
    code = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as stop:
        code = int(stop.code or 0)
    finally:
        sys.argv = argv
    return Outcome(code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="session")
def expunge() -> Expunge:
    """Call `expunge` with arguments."""
    return _expunge


@pytest.fixture(scope="session")
def subject(tiny_folder: Path, fact_files: dict[str, Path]) -> list[str]:
    """Arguments that name the tiny model and its facts."""
    named = [f"--{name}={path}" for name, path in fact_files.items()]
    return [f"--model={tiny_folder}", *named, "--recipe=npo"]


@pytest.fixture(scope="session")
def quick() -> list[str]:
    """Settings of a short run."""
    settings = ("train.epochs=2", "train.lr=1e-3", "evaluate.samples=2", "evaluate.max_new_tokens=24")
    return [part for setting in settings for part in ("--set", setting)]


class Finished(NamedTuple):
    """A finished run and what its command printed."""

    folder: Path
    outcome: Outcome


@pytest.fixture(scope="session")
def finished(
    expunge: Expunge, subject: list[str], quick: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Finished:
    """One run through the command, with its progress bars drawn."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    return Finished(folder, expunge("run", *subject, *quick, "--out", folder, "--json"))
