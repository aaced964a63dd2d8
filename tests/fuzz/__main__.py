"""Tries seeded bad inputs on every command: `python tests/fuzz --cases 1000 --seed 0`.

Each must be refused in one line with exit code 2, and leave no file behind.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from bad_inputs import cases
from refused import fault_of
from sandbox import preload
from world import make_world


def main() -> int:
    """Print each case that was not refused as it should be, then the counts; gives the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--family", help="only this family of cases")
    parser.add_argument("--verbose", action="store_true", help="also print what was refused, and how")
    options = parser.parse_args()
    start = time.monotonic()
    os.environ.update(TOKENIZERS_PARALLELISM="false", HF_HUB_OFFLINE="1", PIP_NO_INDEX="1", OMP_NUM_THREADS="1")
    preload()
    faults: Counter[str] = Counter()
    tried: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["EXPUNGE_CACHE"] = f"{scratch}/cache"
        (Path(scratch) / "world").mkdir()
        world = make_world(Path(scratch) / "world")
        for case in cases(options.seed, options.cases):
            if options.family not in (None, case.family):
                continue
            call, outcome, fault = fault_of(case, world, Path(scratch))
            tried[case.family] += 1
            if fault is not None:
                faults[case.family] += 1
                print(f"{case.number:4} {case.family}: {call.what}\n     expunge {' '.join(call.arguments)[-300:]}")
                print(f"     -> {fault}", flush=True)
            elif options.verbose:
                print(f"{case.number:4} {case.family}: {call.what}\n     -> {outcome.err.strip()}", flush=True)
    for name in sorted(tried):
        print(f"{name:22} {tried[name]:5} tried {faults[name]:5} not refused")
    print(f"{'all':22} {tried.total():5} tried {faults.total():5} not refused, {time.monotonic() - start:.0f} s")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
