"""Every shipped recipe runs: it takes steps, all of whose values are numbers, and leaves a model.

The official ones take their steps in test_official_recipes.py.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from expunge.config import load_run
from expunge.core.catalog import recipe_names
from expunge.workflows.run import execute

SMALLER = {
    "falcon": ("localize.name=layers",),
    "task_vector": ("edit.tuning_epochs=1", "edit.tuning_batch_size=4"),
    "whp": ("forget.tuning_epochs=1",),
    "rmu_zephyr": ("train.steps=2", "localize.layers=[0,1]", "forget.layer=1", "retain.layer=1"),
    "adaptive_rmu_zephyr": ("train.steps=2", "localize.layers=[0,1]", "forget.layer=1", "retain.layer=1"),
    "falcon_zephyr": ("train.steps=2", "localize.layers=[0,1]", "forget.layer=1", "retain.layer=1"),
}
"""What recipes for 32 blocks need on three, and one that compares 30 rows of either kind where there are 8."""

WITHOUT_TRAINING = ("ssd", "task_vector")


@pytest.mark.parametrize("name", [name for name in recipe_names() if not name.endswith("_official")])
def test_every_recipe_runs(name: str, tiny_folder: Path, fact_files: dict[str, Path], tmp_path: Path) -> None:
    run = load_run(
        None,
        {
            "recipe": name,
            "model": {"name": str(tiny_folder)},
            "data": {split: str(path) for split, path in fact_files.items()},
            "evaluate": {"metrics": ["probability"], "max_rows": 2},
            "attacks": {"names": []},
        },
        [
            *([] if name in WITHOUT_TRAINING else ["train.epochs=1"]),
            *("train.batch_size=4", "guard.utility_floor=0"),
            *SMALLER.get(name, ()),
        ],
    )
    record = execute(run, tmp_path / "run").record
    assert record.num_steps >= 2 or (name in WITHOUT_TRAINING and record.num_steps == 0)
    assert record.steps
    assert all(math.isfinite(value) for step in record.steps for value in step.values.values())
    assert (tmp_path / "run" / "model").is_dir()
