"""Runs the command line in a forked process of its own: fast, since everything heavy is already loaded."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class Outcome(NamedTuple):
    """What a command left behind."""

    code: int
    """Exit code; minus the signal's number if it was killed."""
    out: str
    err: str
    timed_out: bool


def preload() -> None:
    """Import what commands import when they run, so that every fork has it.

    Nothing is computed here: a library's thread pool does not survive a fork.
    """
    import peft  # noqa: F401
    import transformers.models.llama.modeling_llama  # noqa: F401

    import expunge.api
    import expunge.cli.main
    import expunge.config
    import expunge.workflows.attack
    import expunge.workflows.teach  # noqa: F401


def expunge(
    arguments: Sequence[str], folder: Path, seconds: float = 60, environment: dict[str, str] | None = None
) -> Outcome:
    """Call `expunge` with arguments in a working folder.

    Args:
        arguments: the command line after `expunge`.
        folder: the working folder.
        seconds: the process is killed after this long.
        environment: variables set on top of the present ones.
    """
    streams = [folder.with_name(f"{folder.name}.{name}") for name in ("out", "err")]
    sys.stdout.flush()
    sys.stderr.flush()
    process = os.fork()
    if process == 0:
        _command(arguments, folder, streams, environment or {})
    end = time.monotonic() + seconds
    timed_out = False
    while True:
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            break
        if not timed_out and time.monotonic() > end:
            os.kill(process, signal.SIGKILL)
            timed_out = True
        time.sleep(0.005)
    texts = [path.read_bytes().decode("utf-8", "replace") if path.exists() else "" for path in streams]
    for path in streams:
        path.unlink(missing_ok=True)
    return Outcome(os.waitstatus_to_exitcode(status), *texts, timed_out)


def _command(arguments: Sequence[str], folder: Path, streams: Sequence[Path], environment: dict[str, str]) -> None:
    """The child: never returns."""
    code = 70
    try:
        for number, path in enumerate(streams, start=1):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", encoding="utf-8") for number in (1, 2))
        os.chdir(folder)
        os.environ.update(environment)
        sys.argv = ["expunge", *arguments]
        from expunge.cli.main import main

        main()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(bool(stop.code))
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
