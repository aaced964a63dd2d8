"""CPU seconds of commands that only list, each in a fresh process: `python benchmarks/listings.py`.

The baseline is an interpreter that imports the command line and does nothing.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys

COMMANDS = ("--help", "recipes", "suites", "reproductions", "metrics", "models", "show recipe npo")
ROUNDS = 3


def cpu_seconds(command: list[str]) -> float:
    """User and system time of one process."""
    before = os.times()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def main() -> None:
    """Print the median over rounds for each command."""
    calls = {"(import only)": [sys.executable, "-c", "import expunge.cli.main"]}
    calls |= {command: [sys.executable, "-m", "expunge", *command.split()] for command in COMMANDS}
    for name, call in calls.items():
        print(f"{name:<18} {statistics.median(cpu_seconds(call) for _ in range(ROUNDS)):.2f} s of CPU")


if __name__ == "__main__":
    main()
