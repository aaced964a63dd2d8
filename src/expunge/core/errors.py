"""The errors that a user sees, and the similar names that they offer."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ExpungeError(Exception):
    """Something failed that is not the user's mistake: exit code 1."""


class UserError(ExpungeError):
    """The user's mistake, in one line: what is wrong, where, and what to do. Exit code 2, no traceback."""


class ModelLost(ExpungeError):
    """The weights of a model in memory could not be restored: it must not be used any more."""


def near(name: str, names: Iterable[str]) -> str:
    """A tail for an error message: the nearest of `names`, or all of them when none is near.

    Returns "" when there is nothing to offer.
    """
    known = sorted(set(names))
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    if close:
        return f"; did you mean {' or '.join(close)}?"
    if known and len(known) <= 30:
        return f"; known: {', '.join(known)}"
    return ""
