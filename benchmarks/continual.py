"""Five requests in turn, by four methods: `python benchmarks/continual.py MODEL OUT [SEED ...]` (default 0 1 2).

MODEL is what `expunge reproduce beliefs` teaches (the larger set under `taught/`): it knows ten invented authors.
Authors 1 to 5 are forgotten in turn, 6 to 8 are retained, 9 and 10 are neighbours. A second call finds finished steps.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import tomli_w

from expunge.cli._console import progress_for, quiet_libraries
from expunge.core.records import SequenceRecord
from expunge.workflows.continual import execute_plan, load_plan

METHODS = {
    "me_gd": {"combine": {"forget_weight": 0.5}},
    "idk_ap": {},
    "grad_diff": {},
    "npo": {},
}
LR = 3e-5
METRICS = [
    *("probability", "normalised_probability", "rouge_l_recall", "truth_ratio"),
    *("keyword_recall", "sample_leak"),
]
AUTHORS = {"name": "fictional", "split": "all", "options": {"authors": 10, "questions": 10}}


def main(model: str, out: Path, seeds: list[int]) -> None:
    """Run every sequence, then print one row per method and step: means over seeds."""
    quiet_libraries()
    records: dict[str, list[SequenceRecord]] = {}
    for seed in seeds:
        for method in METHODS:
            folder = out / f"{method}-{seed}"
            file = out / f"{method}-{seed}.toml"
            out.mkdir(parents=True, exist_ok=True)
            file.write_text(tomli_w.dumps(_tables(method, model, seed)))
            record = execute_plan(load_plan(file, folder), folder, resume=folder.is_dir(), progress=progress_for(True))
            records.setdefault(method, []).append(record)
            for model_folder in folder.glob("step-*/model"):
                shutil.rmtree(model_folder)
    print("| method | step | keyword recall: asked now | asked earlier | to come | sample leak, all asked | mu9 |")
    print("|---|---|---|---|---|---|---|")
    for method, some in records.items():
        for step in range(len(some[0].steps)):
            cells = [_mean([_recall(record, step, which) for record in some]) for which in (0, -1, 1)]
            leak = _mean([_asked(record, step, "sample_leak") for record in some])
            utility = _mean([record.steps[step].aggregates["mu9"].value for record in some])
            print(f"| {method} | {step} | {' | '.join(cells)} | {leak} | {utility} |")


def _tables(method: str, model: str, seed: int) -> dict[str, object]:
    own = METHODS[method]
    return {
        "recipe": method,
        "seed": seed,
        "model": {"name": model},
        "data": {
            "requests": [{**AUTHORS, "skip": 10 * author, "limit": 10} for author in range(5)],
            "retain": {**AUTHORS, "skip": 50, "limit": 30},
            "neighbour": {**AUTHORS, "skip": 80},
            "general": {"name": "people", "split": "general", "limit": 20},
        },
        "localize": {"name": "layers", "depth": [0.5, 1.0]},
        "train": {"lr": LR, "epochs": 5, "warmup_epochs": 1.0, "batch_size": 4, "checkpoints": False},
        "guard": {"utility_floor": 0.0, "rows": 8, "every": 1000},
        "evaluate": {"max_new_tokens": 24, "max_rows": 10, "samples": 3, "metrics": METRICS},
        "attacks": {"names": []},
        **own,
    }


def _recall(record: SequenceRecord, step: int, which: int) -> float | None:
    """Keyword recall over the requests made at this step (0), before it (-1) or after it (1)."""
    places = [place for place in range(len(record.requests)) if (place + 1 > step) - (place + 1 < step) == which]
    values = [record.steps[step].requests[place]["keyword_recall"].value for place in places]
    return sum(values) / len(values) if values else None


def _asked(record: SequenceRecord, step: int, metric: str) -> float | None:
    values = [record.steps[step].requests[place][metric].value for place in range(step)]
    return sum(values) / len(values) if values else None


def _mean(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{sum(known) / len(known):.2f}" if known else "-"


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), [int(part) for part in sys.argv[3:]] or [0, 1, 2])
