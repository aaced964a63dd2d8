"""Attacks that an unexpected error ended: what the user is told, and the exit code."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from expunge.core.attack_record import AttackResult
from expunge.core.errors import ExpungeError
from expunge.core.printable import printable


def check_attacks(broken: Sequence[AttackResult], record: Path, verbose: bool) -> None:
    """Fail where attacks broke off; everything else is done and written by then.

    Args:
        broken: the attacks.
        record: the file that keeps their tracebacks.
        verbose: print these too.

    Raises:
        ExpungeError: there are any.
    """
    if not broken:
        return
    for one in broken if verbose else ():
        print(printable(f"{one.name}: {one.failed}\n{one.traceback}"), file=sys.stderr)
    first = f"{broken[0].name} failed ({broken[0].failed})"
    more = f", and {len(broken) - 1} more" if len(broken) > 1 else ""
    raise ExpungeError(
        f"{first}{more}; all else is done, {record} keeps the traceback{'' if verbose else ' (--verbose)'}"
    )
