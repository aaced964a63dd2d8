"""Which metrics deserve trust? Teach a pool and meta-evaluate it: `python benchmarks/meta_evaluation.py OUT [--small]`.

Models of smollm2-135m that were taught two invented authors to keep and either one to forget, or not, over seeds and
learning rates; and unlearned ones, by several recipes from the first of those that know. `--small` goes through the
same steps with one model of each kind, and shows nothing. A second call finds what the first one made.
"""

from __future__ import annotations

import sys
import time
from itertools import product
from pathlib import Path
from typing import Any

import tomli_w
from rich.console import Console

from expunge.cli._console import progress_for, quiet_libraries
from expunge.config import load_run
from expunge.core.toml import Tables
from expunge.evaluate.pool import load_pool
from expunge.reports.section import print_finding
from expunge.workflows.meta_eval import RECORD, meta_evaluate, write_meta
from expunge.workflows.run import execute
from expunge.workflows.teach import check_teach, execute_teach

MODEL = "smollm2-135m"
RECIPES = ("grad_diff", "npo", "idk_ap")


def main(out: Path, small: bool) -> None:
    """Make the pool, write its file, and print the tables."""
    quiet_libraries()
    questions, epochs = (3, 3) if small else (6, 6)
    grid = list(product((0,) if small else (0, 1), (2e-4,) if small else (1e-4, 2e-4)))
    authors = {"name": "fictional", "split": "all", "options": {"authors": 4, "questions": questions}}
    forget = {**authors, "limit": questions}
    retain = {**authors, "skip": questions, "limit": 2 * questions}
    start = time.perf_counter()
    knows = [_taught(out / f"knows-{seed}-{lr:g}", [forget, retain], seed, lr, epochs) for seed, lr in grid]
    others = [_taught(out / f"not-{seed}-{lr:g}", [retain], seed, lr, epochs) for seed, lr in grid]
    taught = time.perf_counter()
    unlearned = [_unlearned(out, recipe, knows[0], forget, retain) for recipe in RECIPES[: 1 if small else None]]
    pool = {
        "original": knows[0],
        "retrained": others[0],
        "depth": ["uds", "logit_lens", "cka", "masked_fisher"],
        "data": {
            "forget": forget,
            "retain": {**retain, "limit": questions},
            "holdout": {**authors, "skip": 3 * questions},
        },
        "evaluate": {"samples": 0, "max_new_tokens": 24},
        "models": [
            *({"path": path, "knows": True} for path in knows),
            *({"path": path, "knows": False} for path in others),
            *({"path": path} for path in unlearned),
        ],
    }
    (out / "pool.toml").write_text(tomli_w.dumps(pool), encoding="utf-8")
    made = time.perf_counter()
    record = meta_evaluate(load_pool(out / "pool.toml"), str(out / "pool.toml"), progress=progress_for(True))
    (out / RECORD).unlink(missing_ok=True)
    write_meta(record, out)
    print_finding(record.finding, Console(width=150), most_rows=len(record.metrics))
    done = time.perf_counter()
    print(f"seconds: teaching {taught - start:.0f}, unlearning {made - taught:.0f}, meta-evaluation {done - made:.0f}")


def _taught(folder: Path, data: list[dict[str, Any]], seed: int, lr: float, epochs: int) -> str:
    tables: Tables = {
        "seed": seed,
        "model": {"name": MODEL},
        "data": {"teach": data},
        "train": {"lr": lr, "epochs": epochs, "batch_size": 8, "checkpoints": False},
    }
    return str(execute_teach(check_teach(tables), folder, progress_for(True)).folder / "model")


def _unlearned(out: Path, recipe: str, original: str, forget: Tables, retain: Tables) -> str:
    """One run whose own measurements are as few as can be."""
    folder = out / recipe
    if not (folder / "record.json").is_file():
        tables = {
            "recipe": recipe,
            "model": {"name": original},
            "data": {"forget": forget, "retain": retain},
            "localize": {"name": "layers", "depth": [0.5, 1.0]},
            "train": {"lr": 1e-4, "epochs": 5, "batch_size": 4, "checkpoints": False},
            "evaluate": {"metrics": ["probability"], "samples": 0, "max_rows": 10},
            "attacks": {"budget": 0.0},
        }
        execute(
            load_run(None, tables, ()), folder, command="benchmarks/meta_evaluation.py", progress=progress_for(True)
        )
    return str(folder / "model")


if __name__ == "__main__":
    main(Path(sys.argv[1]), "--small" in sys.argv[2:])
