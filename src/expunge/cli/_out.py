"""`--out` and `--resume`: what every command that writes has in common."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from expunge.core.errors import ExpungeError, UserError


class Interrupted(ExpungeError):
    """The user stopped the command: exit code 130."""


def out_path(text: str) -> Path:
    """The path of an `--out`; an empty one is not the current folder.

    Raises:
        UserError: the text is empty.
    """
    if not text.strip():
        raise UserError("--out: the name is empty; name a place, or '.' for the current folder")
    return Path(text)


@contextmanager
def resumable(out: Path | None = None, *, option: str | None = None) -> Iterator[None]:
    """Answer Ctrl-C with the line that goes on.

    Args:
        out: where the command writes, if its user did not say so.
        option: what must be added to the same command line to go on; None: nothing.

    Raises:
        Interrupted: in the place of `KeyboardInterrupt`.
    """
    try:
        yield
    except KeyboardInterrupt:
        words = ["expunge", *sys.argv[1:]]
        named = any(word == "--out" or word.startswith("--out=") for word in words)
        words += [] if out is None or named else ["--out", str(out)]
        words += [option] if option and option not in words else []
        raise Interrupted(f"stopped; continue with: {shlex.join(words)}") from None
